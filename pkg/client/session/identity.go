package session

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/kube-zt/zt/pkg/client/device"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// spare is how much of a certificate must be left for something to be promised on
// it: handshakes take time and clocks differ.
const spare = 10 * time.Second

// identity is a trust certificate with the keys that it names. It is immutable;
// a renewal makes another one.
type identity struct {
	issued wire.Certificate
	chain  []*x509.Certificate
	proof  *ecdsa.PrivateKey
	cert   *tls.Certificate
	who    trust.Identity
}

func newProofKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate proof key: %w", err)
	}
	return key, nil
}

// newIdentity checks what the gateway has issued before anything is done with it.
func newIdentity(p *profile.Profile, key *device.Key, proof *ecdsa.PrivateKey, issued wire.Certificate) (*identity, error) {
	bad := func(format string, args ...any) error {
		return fault.New(fault.ExitUntrusted, "ask the gateway's administrator", "the gateway issued a certificate that is not ours: "+format, args...)
	}
	chain, err := trust.ParseCertificates([]byte(issued.Chain))
	if err != nil {
		return nil, bad("%v", err)
	}
	who, err := trust.ParseTrustCertificate(chain[0], p.TrustDomain)
	if err != nil {
		return nil, bad("%v", err)
	}
	jkt, err := evidence.Thumbprint(proof.Public())
	if err != nil {
		return nil, fmt.Errorf("proof key: %w", err)
	}
	switch {
	case who.Key != key.Thumbprint:
		return nil, bad("another device key")
	case who.Proof != jkt:
		return nil, bad("another proof key")
	case who.Session != issued.Session:
		return nil, bad("two session names")
	case who.User.Issuer != p.OIDC.Issuer:
		return nil, bad("another issuer")
	}
	id := &identity{issued: issued, chain: chain, proof: proof, who: who}
	id.cert = &tls.Certificate{PrivateKey: key.Signer, Leaf: chain[0]}
	for _, c := range chain {
		id.cert.Certificate = append(id.cert.Certificate, c.Raw)
	}
	return id, nil
}

// valid reports whether the certificate can be presented at the gateway's time.
// Until its very end it is, and is renewed by what it opens: nobody else renews a
// live one.
func (id *identity) valid(now time.Time) bool { return now.Before(id.who.NotAfter) }

// lasts reports whether it will still be valid when it has arrived.
func (id *identity) lasts(now time.Time) bool { return id.valid(now.Add(spare)) }

// sign makes a peer proof.
func (id *identity) sign(audience string, hello []byte, now time.Time) (string, error) {
	return evidence.SignProof(crypto.Signer(id.proof), evidence.ProofRequest{
		Audience: audience, Hello: hello, Renew: hello == nil, Now: now, Chain: id.chain,
	})
}

// halfLife is when to renew, by the gateway's clock.
func (id *identity) halfLife() time.Time {
	from := id.who.NotBefore
	if t := id.issued.Time; t.After(from) { // leaves are backdated
		from = t
	}
	return from.Add(id.who.NotAfter.Sub(from) / 2)
}
