package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Authorities are all keys of one gateway. They are safe for concurrent use and
// never change after Open, but for the clusters that are added.
type Authorities struct {
	dir         string
	trustDomain string
	domain      string
	now         func() time.Time

	purposes map[trust.Purpose]*authority
	sealer   *sealer
	token    *tokenKey

	mu       sync.Mutex
	clusters map[wire.ClusterName]*ClusterAuthority
}

// Open loads the keys under STATEDIR/ca and makes those that are not there yet.
// The caller holds the state directory's lock. It fails, and the gateway must
// not start, when a key may be read by others (a *LooseError), belongs to other
// names, or is missing beside its certificate.
func Open(stateDir, trustDomain, domain string, now func() time.Time) (*Authorities, error) {
	if now == nil {
		now = time.Now
	}
	if trustDomain == "" || domain == "" {
		return nil, errors.New("open authorities: trust domain and domain must be set")
	}
	a := &Authorities{
		dir:         filepath.Join(stateDir, "ca"),
		trustDomain: trustDomain,
		domain:      domain,
		now:         now,
		purposes:    make(map[trust.Purpose]*authority),
		clusters:    make(map[wire.ClusterName]*ClusterAuthority),
	}
	if err := secretDirectory(a.dir); err != nil {
		return nil, fmt.Errorf("open authorities: %w", err)
	}
	for _, purpose := range trust.Purposes() {
		authority, err := openAuthority(a.dir, string(purpose), a.constraints(purpose), now())
		if err != nil {
			return nil, fmt.Errorf("open authorities: %w", err)
		}
		a.purposes[purpose] = authority
	}
	var err error
	if a.sealer, err = openSealer(filepath.Join(a.dir, "seal.key")); err != nil {
		return nil, fmt.Errorf("open authorities: %w", err)
	}
	if a.token, err = openTokenKey(filepath.Join(a.dir, "token.key")); err != nil {
		return nil, fmt.Errorf("open authorities: %w", err)
	}
	return a, nil
}

func (a *Authorities) constraints(purpose trust.Purpose) constraints {
	c := constraints{name: fmt.Sprintf("zt %s CA %s", purpose, a.trustDomain), usage: x509.ExtKeyUsageClientAuth}
	if purpose == trust.Gateway {
		// No list of names: gw. may be reached by an address or by a name
		// outside the domain, and laptops compare this authority's key alone.
		c.usage = x509.ExtKeyUsageServerAuth
	}
	return c
}

// Roots is the pool of one purpose; it holds that purpose's authority alone.
// The caller must not add to it.
func (a *Authorities) Roots(purpose trust.Purpose) *x509.CertPool {
	return a.purposes[purpose].pool
}

// Certificate is the authority of one purpose.
func (a *Authorities) Certificate(purpose trust.Purpose) *x509.Certificate {
	return a.purposes[purpose].cert
}

// CertificatePEM is the authority of one purpose in PEM.
func (a *Authorities) CertificatePEM(purpose trust.Purpose) []byte {
	return certificatePEM(a.purposes[purpose].cert)
}

// Pin is what laptops compare at first contact: the SHA-256 of the gateway
// authority's public key, in lower-case hex.
func (a *Authorities) Pin() string {
	return trust.SPKIPin(a.purposes[trust.Gateway].cert)
}

// ServerLeaf is a rotating certificate of the gateway's own authority for
// names; an address among them becomes an IP name.
func (a *Authorities) ServerLeaf(names ...string) ServerLeaf {
	leaf := &rotatingLeaf{authority: a.purposes[trust.Gateway], names: names, now: a.now}
	return leaf.get
}

// Seal encrypts plaintext so that only a gateway with the same keys can read
// it, and only under the same purpose.
func (a *Authorities) Seal(plaintext []byte, purpose string) (string, error) {
	return a.sealer.seal(plaintext, purpose)
}

// Open returns what Seal was given, or ErrSealed.
func (a *Authorities) Open(sealed, purpose string) ([]byte, error) {
	return a.sealer.open(sealed, purpose)
}

// MAC is HMAC-SHA-256 under a key of that purpose alone.
func (a *Authorities) MAC(purpose string, message []byte) ([]byte, error) {
	return a.sealer.mac(purpose, message)
}
