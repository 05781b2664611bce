package evidence

import (
	"crypto"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Thumbprint is trust.Thumbprint, for those who only deal in evidence.
func Thumbprint(pub crypto.PublicKey) (wire.Thumbprint, error) { return trust.Thumbprint(pub) }

// DeviceID is trust.DeviceID, for those who only deal in evidence.
func DeviceID(t wire.Thumbprint) wire.DeviceID { return trust.DeviceID(t) }
