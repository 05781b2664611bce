package revoke

import (
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// Facts are what is known of one live thing or one attempt. An empty field is
// not known at that place and matches no revocation: a tunnel holds no roles
// and no cluster, so revoking a role does not end it.
type Facts struct {
	User    wire.User
	Groups  []string
	Device  wire.DeviceID
	Key     wire.Thumbprint
	Session wire.SessionID
	Serial  string
	Roles   []wire.Role
	Cluster wire.ClusterName
	// IssuedAt of the credential shown.
	IssuedAt time.Time
	// Epoch of the state on which Roles were evaluated.
	Epoch wire.Epoch
}

// Registry is the deny set and the register. Make it with New.
type Registry struct{}

// New returns a Registry with an empty deny set.
func New() *Registry { return &Registry{} }

// Register enters something live, before Check. cut is called at most once,
// from another goroutine, when a revocation matches; it must not block: close
// or cancel, and return. release takes the entry out again and may be called
// any number of times.
func (r *Registry) Register(f Facts, cut func(*wire.Refusal)) (release func()) { return func() {} }

// Check refuses what is revoked, nil where nothing is.
func (r *Registry) Check(f Facts) *wire.Refusal { return nil }

// Removed are the roles in f.Roles that a revocation took away; the rest is
// what the request may still be judged with.
func (r *Registry) Removed(f Facts) []wire.Role { return nil }

// Apply puts revocations in force and cuts what lives and matches. It returns
// how many were cut, when their callbacks have returned or 2 s have passed.
func (r *Registry) Apply(revocations []*v1alpha1.Revocation, epoch wire.Epoch) int { return 0 }

// Live lists what is registered, in no order.
func (r *Registry) Live() []Facts { return nil }
