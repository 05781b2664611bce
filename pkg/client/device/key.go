// Package device holds the laptop's device key: the TLS client key of every
// trust certificate and, by its thumbprint, the device's name everywhere.
//
// Here is the software tier: a P-256 key in a file of this user alone. It
// defends against copied tokens and kubeconfigs, not against whoever can read
// this user's files; a gateway sees it as tier "software" whatever it claims.
// The key never leaves this package but as a crypto.Signer.
package device

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/wire"
)

// TierSoftware is the only tier of this package.
const TierSoftware = "software"

const pemType = "PRIVATE KEY"

// Key is a device key. It is immutable and safe for concurrent use.
type Key struct {
	Signer     crypto.Signer
	Thumbprint wire.Thumbprint
	ID         wire.DeviceID
	Tier       string
}

// Open returns the software key of profile n and makes it at first use. A key
// file that cannot be trusted or read is refused and never replaced: a new key
// would be another device.
func Open(home profile.Home, n profile.Name) (*Key, error) {
	path := home.Key(n)
	data, err := profile.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return nil, damaged(path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, damaged(path)
	}
	return newKey(key)
}

func damaged(path string) error {
	return fault.New(fault.ExitUntrusted, "remove it to become a new device", "%s is not a P-256 private key", path)
}

// create loses gracefully: when another process was first, its key is the key.
func create(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	if err := profile.CreateFile(path, data); errors.Is(err, fs.ErrExist) {
		return profile.ReadFile(path)
	} else if err != nil {
		return nil, err
	}
	return data, nil
}

func newKey(signer crypto.Signer) (*Key, error) {
	t, err := evidence.Thumbprint(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("thumbprint: %w", err)
	}
	return &Key{Signer: signer, Thumbprint: t, ID: evidence.DeviceID(t), Tier: TierSoftware}, nil
}

// CSR is a PKCS #10 request (PEM) that proves possession of the key and names
// nobody: the gateway takes every name from what it has verified itself.
func (k *Key) CSR() (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.Signer)
	if err != nil {
		return "", fmt.Errorf("certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
