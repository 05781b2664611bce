package ca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
)

const (
	// trustBackdate lets a verifier whose clock is a little behind accept a
	// certificate at once.
	trustBackdate = 5 * time.Minute
	// MaxTrustLifetime is the longest life of a trust certificate, whatever
	// was configured or asked for.
	MaxTrustLifetime = 12 * time.Hour
)

// IssueTrust signs a trust certificate for identity and pub, valid from five
// minutes ago until lifetime from now, at most MaxTrustLifetime. Of identity only
// session, proof and user are read. It returns the leaf and the authority.
//
// It refuses a key that is one of the gateway's own: whoever asks for that
// holds what he must not hold, or hopes to confuse a verifier.
func (a *Authorities) IssueTrust(identity trust.Identity, pub *ecdsa.PublicKey, lifetime time.Duration) ([]*x509.Certificate, error) {
	if lifetime <= 0 {
		return nil, errors.New("issue trust certificate: its life would already be over")
	}
	if err := a.notOurs(pub); err != nil {
		return nil, fmt.Errorf("issue trust certificate: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.now().UTC().Truncate(time.Second)
	authority := a.purposes[trust.Trust]
	identity.TrustDomain = a.trustDomain
	template, err := trust.TrustTemplate(identity, now.Add(-trustBackdate), now.Add(min(lifetime, MaxTrustLifetime)), serial)
	if err != nil {
		return nil, fmt.Errorf("issue: %v", err)
	}
	leaf, err := authority.sign(template, pub)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{leaf, authority.cert}, nil
}

// ErrOurKey says that a request was made for one of the gateway's own keys.
var ErrOurKey = errors.New("the key belongs to the gateway")

func (a *Authorities) notOurs(pub *ecdsa.PublicKey) error {
	if pub.Equal(&a.token.key.PublicKey) {
		return ErrOurKey
	}
	for _, authority := range a.purposes {
		if pub.Equal(&authority.key.PublicKey) {
			return ErrOurKey
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, cluster := range a.clusters {
		if pub.Equal(&cluster.authority.key.PublicKey) {
			return ErrOurKey
		}
	}
	return nil
}
