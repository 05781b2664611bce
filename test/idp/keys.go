package idp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// signingKey is one key pair of the provider, in the two shapes that the
// library asks for: op.SigningKey (private) and, by public, op.Key.
type signingKey struct {
	id  string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func newSigningKey(alg jose.SignatureAlgorithm) (signingKey, error) {
	k := signingKey{id: randomID(), alg: alg}
	var err error
	switch alg {
	case jose.RS256:
		k.key, err = rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		k.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return k, fmt.Errorf("signing algorithm %q: only RS256 and ES256", alg)
	}
	if err != nil {
		return k, fmt.Errorf("make %s signing key: %w", alg, err)
	}
	return k, nil
}

func (k signingKey) ID() string                                  { return k.id }
func (k signingKey) Key() any                                    { return k.key }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return k.alg }

type publicKey struct{ signingKey }

var _ op.Key = publicKey{}

func (k publicKey) Key() any                           { return k.key.Public() }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return k.alg }
func (k publicKey) Use() string                        { return "sig" }

// RotateKey makes a new key, publishes it beside the old ones and signs with it
// from now on. It returns the new key's id.
func (p *Provider) RotateKey() (string, error) {
	k, err := newSigningKey(p.alg)
	if err != nil {
		return "", err
	}
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	p.storage.keys = append([]signingKey{k}, p.storage.keys...)
	return k.id, nil
}

// RetireKeys stops publishing every key but the current one.
func (p *Provider) RetireKeys() {
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	p.storage.keys = p.storage.keys[:1]
}

// PublicKey is the public half of the key that signs now.
func (p *Provider) PublicKey() crypto.PublicKey { return p.storage.signer().key.Public() }

func (s *storage) signer() signingKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0]
}
