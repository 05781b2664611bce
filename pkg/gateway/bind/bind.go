// Package bind ties a verified token to the stream that it came by. It is what
// makes a stolen token useless: a token of control's names a device key and a
// session, the stream's peer proved both in this very TLS handshake (package
// evidence), and the two must be the same.
//
// Trusted are the trust certificate inside the proof and the verified token,
// nothing that the edge noted. A stream without a proof is direct: control's
// tokens are refused there whatever they say, and another issuer's token is
// what it is, a bearer.
package bind

import (
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Check refuses id unless it belongs to the stream of peer, nil for direct.
func Check(peer *trust.Identity, id *authn.Identity) *wire.Refusal {
	switch {
	case peer == nil && id.Kind == authn.Further:
		return nil
	case peer == nil:
		return wire.Refuse(wire.ReasonBindingMissing, "kubectl zt kubeconfig",
			"this token is bound to a device and works only through that device's tunnel")
	case !peer.User.Same(id.User):
		return wire.Refuse(wire.ReasonIdentityMismatch, "kubectl zt login",
			"the token is another person's than the tunnel")
	case id.Kind == authn.Further:
		return nil
	case id.Kind == authn.Control && peer.Key != "" && peer.Key == id.Key && peer.Session != "" && peer.Session == id.Session:
		return nil
	default:
		return wire.Refuse(wire.ReasonBindingMismatch, "kubectl zt login",
			"the token was issued to another device or session than the tunnel's")
	}
}
