package revoke

import (
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Facts are what is known of one live thing or one attempt. An empty field is
// not known at that place and matches no revocation: a tunnel holds no roles
// and no cluster, so revoking a role does not end it.
type Facts struct {
	User    wire.User
	Groups  []string // the issuer's
	Device  wire.DeviceID
	Key     wire.Thumbprint // of the device key
	Session wire.SessionID
	Serial  string // of the certificate, lower-case hex
	Roles   []wire.Role
	Cluster wire.ClusterName
	// Epoch of the state on which Roles were evaluated.
	Epoch wire.Epoch
}

// complete fills the device from its key where only the key is known.
func (f *Facts) complete() {
	if f.Device == "" && f.Key != "" {
		f.Device = trust.DeviceID(f.Key)
	}
}
