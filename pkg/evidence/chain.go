package evidence

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// chain is the x5c header of a proof: certificates in DER, leaf first.
type chain [][]byte

// maxChains bounds a ChainCache: some 2 MB.
const maxChains = 4096

// ChainCache remembers which trust certificates were verified, for an agent shows
// the same one with every stream, and to verify it anew takes a third of the time
// that a proof takes. It remembers that a certificate is genuine, never that it is
// welcome: time and revocation are looked at each time, and what was verified under
// another pool is forgotten. The zero value is ready; it may be shared by acceptors
// of one trust domain and used concurrently.
type ChainCache struct {
	mu      sync.Mutex
	roots   *x509.CertPool
	genuine map[[sha256.Size]byte]trust.Identity
}

// get returns the identity of c if c was verified under roots.
func (cc *ChainCache) get(c chain, roots *x509.CertPool) (trust.Identity, bool) {
	if cc == nil || roots == nil {
		return trust.Identity{}, false
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.roots == nil || !roots.Equal(cc.roots) {
		// A copy: pools may grow in place.
		cc.roots, cc.genuine = roots.Clone(), make(map[[sha256.Size]byte]trust.Identity)
	}
	id, ok := cc.genuine[c.hash()]
	return id, ok
}

// put remembers that c was verified under roots, unless the pool has changed since.
func (cc *ChainCache) put(c chain, roots *x509.CertPool, id trust.Identity) {
	if cc == nil {
		return
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.roots == nil || !roots.Equal(cc.roots) {
		return
	}
	if len(cc.genuine) >= maxChains {
		clear(cc.genuine) // every session comes again, at the price of one verification
	}
	cc.genuine[c.hash()] = id
}

func (c chain) hash() [sha256.Size]byte {
	h := sha256.New()
	for _, der := range c { // DER says its own length
		h.Write(der)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// verify returns whose chain c is, and a refusal if it is genuine but its time is
// not now. It is verified at a moment at which it was valid, so that one which is
// merely too old is known to be genuine.
func (c chain) verify(roots *x509.CertPool, trustDomain string, now time.Time, cache *ChainCache) (trust.Identity, *wire.Refusal, error) {
	id, ok := cache.get(c, roots)
	if !ok || id.TrustDomain != trustDomain {
		certs, err := c.parse()
		if err != nil {
			return trust.Identity{}, nil, err
		}
		at := now
		if at.After(certs[0].NotAfter) {
			at = certs[0].NotAfter
		}
		if at.Before(certs[0].NotBefore) {
			at = certs[0].NotBefore
		}
		if id, err = trust.VerifyTrustChain(certs, roots, trustDomain, at); err != nil {
			return trust.Identity{}, nil, err
		}
		cache.put(c, roots, id)
	}
	switch {
	case now.After(id.NotAfter):
		return id, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the trust certificate expired at %s", id.NotAfter.UTC().Format(time.RFC3339)), nil
	case now.Before(id.NotBefore):
		return id, wire.Refuse(wire.ReasonClockSkew, "", "the trust certificate is not valid before %s: clock skew", id.NotBefore.UTC().Format(time.RFC3339)), nil
	}
	return id, nil, nil
}

func (c chain) parse() ([]*x509.Certificate, error) {
	if len(c) == 0 {
		return nil, errors.New("no certificate in the header")
	}
	certs := make([]*x509.Certificate, len(c))
	for i, der := range c {
		var err error
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	return certs, nil
}
