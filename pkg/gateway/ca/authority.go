package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// authorityLifetime is how long an authority lasts. Laptops pin its key, so it
// outlives every leaf and is changed by people, not by a clock.
const authorityLifetime = 10 * 365 * 24 * time.Hour

// authority is one signing key and the certificate that goes with it.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

// constraints are what an authority may sign.
type constraints struct {
	name  string // common name, for people
	usage x509.ExtKeyUsage
	// domains, when not empty, are the only DNS names (and what is below
	// them); noAddresses forbids IP addresses as well, which a list of domains
	// leaves open.
	domains     []string
	noAddresses bool
}

// openAuthority loads DIR/BASE.key and DIR/BASE.crt, making what is not there.
func openAuthority(dir, base string, c constraints, now time.Time) (*authority, error) {
	keyPath, certPath := filepath.Join(dir, base+".key"), filepath.Join(dir, base+".crt")
	certPEM, certErr := os.ReadFile(certPath)
	if certErr != nil && !errors.Is(certErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %v", certPath, certErr)
	}
	if certErr == nil {
		if _, err := os.Stat(keyPath); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there but its key %s is not: restore the key; laptops pin it, so another cannot replace it", certPath, keyPath)
		}
	}
	key, _, err := loadOrCreateKey(keyPath)
	if err != nil {
		return nil, err
	}
	var cert *x509.Certificate
	if certErr == nil {
		cert, err = parseAuthority(certPath, certPEM, key, c)
	} else {
		cert, err = selfSign(key, c, now)
		if err == nil {
			err = create(certPath, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw}))
		}
	}
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}, nil
}

// parseAuthority reads a certificate and holds it against its key and against
// what this gateway would write into it today.
func parseAuthority(path string, data []byte, key *ecdsa.PrivateKey, c constraints) (*x509.Certificate, error) {
	der, err := onePEM(path, data, pemCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %v", path, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: certificate is not of the key beside it", path)
	}
	if !cert.IsCA || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != c.usage {
		return nil, fmt.Errorf("%s: not an authority for this purpose", path)
	}
	if !slices.Equal(cert.PermittedDNSDomains, c.domains) {
		return nil, fmt.Errorf("%s: made for the names %q, the configuration needs %q: a domain cannot change under an authority that laptops pin", path, cert.PermittedDNSDomains, c.domains)
	}
	return cert, nil
}

func selfSign(key *ecdsa.PrivateKey, c constraints, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: c.name},
		NotBefore:             now.Add(-serverBackdate).UTC(),
		NotAfter:              now.Add(authorityLifetime).UTC(),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{c.usage},
		PermittedDNSDomains:   c.domains,
		// Meaningful only with the lists below; a verifier that does not know
		// name constraints must not pass over them.
		PermittedDNSDomainsCritical: len(c.domains) > 0,
	}
	if c.noAddresses {
		template.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %v", c.name, err)
	}
	return x509.ParseCertificate(der)
}

// sign issues template for pub, ending no later than the authority itself.
func (a *authority) sign(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back certificate: %v", err)
	}
	return cert, nil
}

// newSerial is 127 random bits, never zero: far more than the 64 that keep two
// replicas from ever issuing the same (RFC 5280 §4.1.2.2 wants it positive).
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("draw serial: %v", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// certificatePEM encodes certificates, leaf first.
func certificatePEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw}))
	}
	return out.Bytes()
}
