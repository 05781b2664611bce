package evidence

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/kube-zt/zt/pkg/wire"
)

// statementType is the JWS "typ" of a device statement: no other JWS of zt, and
// no token of an issuer, can be taken for one.
const statementType = "zt-device+jwt"

// maxStatement is in bytes of the compact form.
const maxStatement = 4096

// SignStatement signs s with the device key, which must be ECDSA P-256.
func SignStatement(key crypto.Signer, s wire.DeviceStatement) (string, error) {
	jws, err := sign(key, statementType, nil, s)
	if err != nil {
		return "", fmt.Errorf("sign device statement: %w", err)
	}
	if len(jws) > maxStatement {
		return "", fmt.Errorf("sign device statement: %d bytes, at most %d are allowed", len(jws), maxStatement)
	}
	return jws, nil
}

// VerifyStatement returns the statement in jws and the device key that signed
// it, if it is meant for trustDomain. It looks at no clock and no nonce.
func VerifyStatement(jws, trustDomain string) (wire.DeviceStatement, crypto.PublicKey, error) {
	if len(jws) > maxStatement {
		return wire.DeviceStatement{}, nil, fmt.Errorf("device statement: %d bytes, at most %d are allowed", len(jws), maxStatement)
	}
	signed, err := verify(jws, statementType)
	if err != nil {
		return wire.DeviceStatement{}, nil, fmt.Errorf("device statement: %w", err)
	}
	var s wire.DeviceStatement
	if err := json.Unmarshal(signed.payload, &s); err != nil {
		return wire.DeviceStatement{}, nil, fmt.Errorf("device statement: %w", err)
	}
	if s.Audience == "" || s.Audience != trustDomain {
		return wire.DeviceStatement{}, nil, fmt.Errorf("device statement: made for %q, not for %q", s.Audience, trustDomain)
	}
	return s, signed.key, nil
}

// OIDCNonce is the nonce that the ID token of the device transaction txn must
// carry: it ties the person's login to the device key with thumbprint jkt.
func OIDCNonce(txn string, jkt wire.Thumbprint) string {
	sum := sha256.Sum256([]byte(txn + string(jkt)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
