package evidence

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// TestChainCache: a certificate that was verified before is taken without being
// verified again, and nothing else is taken.
func TestChainCache(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	l := newLaptop(t, ca)
	jws, now := l.prove(t, []byte("hello")), time.Now()
	cache := new(ChainCache)
	verify := func(jws string, roots *x509.CertPool, domain string, now time.Time) error {
		t.Helper()
		proof, err := verifyProof(jws, roots, domain, now, cache)
		var refusal *wire.Refusal
		if err != nil && !errors.As(err, &refusal) && proof != nil {
			t.Errorf("%+v beside %v", proof, err)
		}
		return err
	}
	reason := func(err error) wire.Reason {
		var refusal *wire.Refusal
		if errors.As(err, &refusal) {
			return refusal.Reason
		}
		return ""
	}
	for range 2 {
		if err := verify(jws, ca.pool(), domain, now); err != nil || len(cache.genuine) != 1 {
			t.Fatalf("%v, %d are known", err, len(cache.genuine))
		}
	}
	// Known as genuine, and judged by the time all the same.
	if err := verify(jws, ca.pool(), domain, now.Add(2*time.Hour)); reason(err) != wire.ReasonSessionEnded {
		t.Errorf("expired: %v", err)
	}
	if err := verify(jws, ca.pool(), domain, now.Add(-time.Hour)); reason(err) != wire.ReasonClockSkew {
		t.Errorf("not yet valid: %v", err)
	}
	if err := verify(jws, ca.pool(), "other.example.com", now); err == nil || reason(err) != "" {
		t.Errorf("of another trust domain: %v", err)
	}
	if err := verify(jws, nil, domain, now); err == nil {
		t.Error("accepted without any authority")
	}
	// A pool that has changed forgets everything, and one that has not, nothing.
	if err := verify(jws, other.pool(), domain, now); err == nil {
		t.Error("accepted under an authority that has retired")
	}
	if len(cache.genuine) != 0 {
		t.Errorf("%d are known that nobody vouches for", len(cache.genuine))
	}
	grown := ca.pool()
	if err := verify(jws, grown, domain, now); err != nil {
		t.Fatal(err)
	}
	grown.AddCert(other.cert) // in place: the pointer is the same
	if err := verify(jws, grown, domain, now); err != nil {
		t.Error(err)
	}
	// It does not grow without bound.
	for i := range maxChains {
		cache.genuine[[32]byte{byte(i), byte(i >> 8), 1}] = l.identity(t)
	}
	if err := verify(newLaptop(t, ca).prove(t, []byte("hello")), grown, domain, now); err != nil || len(cache.genuine) != 1 {
		t.Errorf("%d are known, %v", len(cache.genuine), err)
	}
}
