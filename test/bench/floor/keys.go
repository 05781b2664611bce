package floor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// ServerName is in the certificate of every floor.
const ServerName = "floor.test"

// Keys are all keys of the floors, ECDSA P-256: one certificate, signed by
// itself, for servers and for the laptop, and one key for tokens.
type Keys struct {
	CertPEM  []byte
	KeyPEM   []byte
	TokenPEM []byte // SEC 1 private key
}

// NewKeys makes keys for one run.
func NewKeys() (Keys, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("make the floors' keys: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: ServerName},
		DNSNames:     []string{ServerName},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Keys{}, fmt.Errorf("make the floors' keys: %w", err)
	}
	tokenKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("make the floors' keys: %w", err)
	}
	keys := Keys{CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	if keys.KeyPEM, err = encodeKey(key); err != nil {
		return Keys{}, err
	}
	if keys.TokenPEM, err = encodeKey(tokenKey); err != nil {
		return Keys{}, err
	}
	return keys, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the floors' keys: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// Roots trusts the floors' certificate.
func (k Keys) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.CertPEM)
	return pool
}

// ServerTLS is for a listener of a floor. mutual asks for the laptop's
// certificate, and then never hands out a session ticket, as zt must not.
func (k Keys) ServerTLS(mutual bool, protocols ...string) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(k.CertPEM, k.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the floors' keys: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: protocols}
	if mutual {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = k.Roots()
		config.SessionTicketsDisabled = true
	}
	return config, nil
}

// ClientTLS is for a client of a floor; mutual shows the laptop's certificate.
func (k Keys) ClientTLS(mutual bool, protocols ...string) (*tls.Config, error) {
	config := &tls.Config{RootCAs: k.Roots(), ServerName: ServerName, MinVersion: tls.VersionTLS13, NextProtos: protocols}
	if mutual {
		cert, err := tls.X509KeyPair(k.CertPEM, k.KeyPEM)
		if err != nil {
			return nil, fmt.Errorf("read the floors' keys: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

func (k Keys) tokenKey() (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(k.TokenPEM)
	if block == nil {
		return nil, fmt.Errorf("read the floors' keys: no PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the floors' keys: %w", err)
	}
	return key, nil
}

// claims of the floors' tokens.
type claims struct {
	Subject string   `json:"sub"`
	Groups  []string `json:"groups"`
	Expiry  int64    `json:"exp"`
}

// Token signs a token for a user and groups, good for life.
func (k Keys) Token(user string, groups []string, life time.Duration) (string, error) {
	key, err := k.tokenKey()
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		return "", fmt.Errorf("sign a floor's token: %w", err)
	}
	return jwt.Signed(signer).Claims(claims{Subject: user, Groups: groups, Expiry: time.Now().Add(life).Unix()}).Serialize()
}
