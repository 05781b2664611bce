package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/wire"
)

// deviceIDLength is in characters of base32: 100 bits of the thumbprint, short
// enough to be read aloud and long enough that nobody finds a second key.
const deviceIDLength = 20

// Thumbprint is the RFC 7638 SHA-256 thumbprint of an ECDSA P-256 or P-384
// public key. Other keys have no place in zt and are refused.
func Thumbprint(pub crypto.PublicKey) (wire.Thumbprint, error) {
	if err := checkKey(pub); err != nil {
		return "", err
	}
	sum, err := (&jose.JSONWebKey{Key: pub}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint: %v", err)
	}
	return wire.Thumbprint(base64.RawURLEncoding.EncodeToString(sum)), nil
}

// DeviceID is how people name the device key with thumbprint t: the first
// characters of its lower-case base32 form. It is empty if t is no thumbprint.
func DeviceID(t wire.Thumbprint) wire.DeviceID {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(string(t))
	if err != nil || len(sum) != sha256.Size {
		return ""
	}
	return wire.DeviceID(strings.ToLower(base32.StdEncoding.EncodeToString(sum))[:deviceIDLength])
}

// SPKIPin is the lower-case hex SHA-256 of the certificate's
// SubjectPublicKeyInfo: it outlives a re-issue under the same key.
func SPKIPin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

func checkKey(pub crypto.PublicKey) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("public key is %T, want ECDSA P-256 or P-384", pub)
	}
	if key == nil || (key.Curve != elliptic.P256() && key.Curve != elliptic.P384()) {
		return fmt.Errorf("public key is on another curve than P-256 and P-384")
	}
	return nil
}
