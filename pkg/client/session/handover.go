package session

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/wire"
)

// State is a live session for the agent that follows, over an inherited pipe and
// never by way of disk or environment. It is made of secrets: whoever holds one
// sends it and forgets it.
type State struct {
	Issued   wire.Certificate `json:"issued"`
	ProofKey []byte           `json:"proofKey"` // PKCS #8
	Offset   time.Duration    `json:"offset"`
	IDToken  string           `json:"idToken,omitempty"`
	Access   string           `json:"access,omitempty"`
	Refresh  string           `json:"refresh,omitempty"`
	Expiry   time.Time        `json:"expiry,omitzero"`
	Spent    bool             `json:"spent,omitempty"`
	Clusters []wire.Cluster   `json:"clusters,omitempty"`
}

// String keeps a State out of logs by every careless verb.
func (State) String() string { return "[session state]" }

// GoString is String.
func (s State) GoString() string { return s.String() }

// Export returns the state of a live session, or nil.
func (s *Session) Export() (*State, error) {
	l, _ := s.current()
	if l == nil {
		return nil, nil
	}
	id := l.identity.Load()
	der, err := x509.MarshalPKCS8PrivateKey(id.proof)
	if err != nil {
		return nil, fmt.Errorf("export session: %w", err)
	}
	l.idp.mu.Lock()
	defer l.idp.mu.Unlock()
	t := l.idp.tokens
	return &State{
		Issued: id.issued, ProofKey: der, Offset: s.clock.skew(), Clusters: l.catalogue.list(),
		IDToken: t.IDToken.Reveal(), Access: t.AccessToken.Reveal(), Refresh: t.RefreshToken.Reveal(), Expiry: t.Expiry, Spent: l.idp.spent != nil,
	}, nil
}

// Import makes the state of another agent live here. The certificate is checked
// as if the gateway had just issued it.
func (s *Session) Import(st *State) error {
	key, err := x509.ParsePKCS8PrivateKey(st.ProofKey)
	proof, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("import session: bad proof key")
	}
	id, err := newIdentity(s.profile.Load(), s.key, proof, st.Issued)
	if err != nil {
		return err
	}
	provider := &idp{tokens: login.Tokens{
		IDToken: login.Secret(st.IDToken), AccessToken: login.Secret(st.Access), RefreshToken: login.Secret(st.Refresh), Expiry: st.Expiry,
	}}
	if st.Spent {
		provider.spent = login.ErrReloginNeeded
	}
	s.clock.observe(s.deps.Now().Add(st.Offset), s.deps.Now())
	l, err := s.begin(id, provider)
	if err != nil {
		return err
	}
	if len(st.Clusters) > 0 {
		l.catalogue.set(st.Clusters)
	}
	if !s.replace(nil, l, nil) {
		return errors.New("import session: there is one already")
	}
	return nil
}
