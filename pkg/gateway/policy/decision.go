package policy

import (
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// AdminRole is the AccessRole whose holders the built-in denies let pass.
const AdminRole wire.Role = "zt-admin"

// SystemNamespace is where zt lives inside a cluster.
const SystemNamespace = "zt-system"

// BuiltinPolicy stands in Decision.Policy where no AccessPolicy but a rule of
// this package decided.
const BuiltinPolicy = "built-in"

// Subject is whom Roles judges. Groups are the issuer's, not Kubernetes'.
type Subject struct {
	User   wire.User
	Groups []string
	Device wire.Device
}

// Input is one request. The caller has proved all of it.
type Input struct {
	// Now is compared with the end of Permissive.
	Now   time.Time
	User  wire.User
	Roles []wire.Role
	// DenyRoles are further roles that Denies see and Allows do not: taking a role
	// from somebody must not take from him what it denied.
	DenyRoles []wire.Role
	Device    wire.Device

	Cluster wire.ClusterName
	// Verb as Kubernetes' RequestInfo gives it; Decide itself turns exec,
	// attach, port-forward and proxy into create, and HEAD into get.
	Verb            string
	APIGroup        string
	Resource        string
	Subresource     string
	Namespace       string
	Name            string
	Path            string // with its query, behind a proxy sub-resource
	ResourceRequest bool
	// Object is what the body says, where [Compiled.WantsObject] asks for it.
	Object *Object
}

// Decision is the answer. WouldDeny with Allowed means that only Permissive let
// the request pass: Reason, Policy, Rule and Message then say why it would have
// been refused, for the record and not for the person.
type Decision struct {
	Allowed   bool
	WouldDeny bool
	Reason    wire.Reason
	// Policy that decided, or BuiltinPolicy; empty where nothing covered it.
	Policy string
	// Rule is the index in Policy's rules, -1 where no rule decided.
	Rule int
	// Message and Hint are for the person: what, by which policy, what would
	// pass, and the next command. Empty when allowed.
	Message string
	Hint    string
	// Version of the configuration that decided.
	Version string
}

// Refusal turns a decision that does not allow into what travels on, nil for
// one that allows.
func (d Decision) Refusal() *wire.Refusal {
	if d.Allowed {
		return nil
	}
	return &wire.Refusal{Reason: d.Reason, Message: d.Message, Hint: d.Hint, Policy: d.Policy}
}
