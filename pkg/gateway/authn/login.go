package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/wire"
)

// Errors of Login.Verify that callers answer differently.
var (
	// ErrKeysUnreachable: there is no key to judge with, and none can be had now.
	ErrKeysUnreachable = errors.New("the issuer's keys cannot be fetched")
	// ErrExpired: genuine but over.
	ErrExpired = errExpired
	// ErrTooLarge: longer than LoginLimit.
	ErrTooLarge = errTooLarge
)

// LoginOptions say whose ID tokens are accepted at a login.
type LoginOptions struct {
	Issuer   wire.Issuer
	ClientID string
	// Algorithms that the issuer may sign with.
	Algorithms []string
	// Client calls the issuer. It must not follow redirects.
	Client *http.Client
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Fetched is told of every fetch of keys; may be nil.
	Fetched func(issuer wire.Issuer, at time.Time, err error)
}

// Login verifies the ID tokens with which people log in. Nobody uses them at a
// cluster: control turns them into a session.
type Login struct {
	o        LoginOptions
	keys     *keySet
	verifier *oidc.IDTokenVerifier
}

// IDToken is a verified ID token. Claims hold everything, also the names of
// distributed claims, which nobody here follows.
type IDToken struct {
	Subject wire.Subject
	Nonce   string
	Issued  time.Time
	Expires time.Time
	Claims  map[string]json.RawMessage
}

// NewLogin starts and fetches nothing, so that it works while the issuer does not.
func NewLogin(o LoginOptions) *Login {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fetched == nil {
		o.Fetched = func(wire.Issuer, time.Time, error) {}
	}
	allowed := make([]jose.SignatureAlgorithm, len(o.Algorithms))
	for i, name := range o.Algorithms {
		allowed[i] = jose.SignatureAlgorithm(name)
	}
	keys := &keySet{
		issuer:     o.Issuer,
		discovery:  strings.TrimSuffix(string(o.Issuer), "/") + "/.well-known/openid-configuration",
		client:     o.Client,
		now:        o.Now,
		fetched:    o.Fetched,
		algorithms: allowed,
	}
	return &Login{o: o, keys: keys, verifier: oidc.NewVerifier(string(o.Issuer), keys, &oidc.Config{
		ClientID:             o.ClientID,
		SupportedSigningAlgs: o.Algorithms,
		SkipExpiryCheck:      true, // go-oidc grants nbf five minutes; current does not
	})}
}

// Run keeps the issuer's keys fresh until ctx ends, so that a withdrawn key goes
// away and an issuer that was down at the start is found when it is back.
func (l *Login) Run(ctx context.Context) error {
	ticker := time.NewTicker(fetchCooldown)
	defer ticker.Stop()
	for {
		if l.keys.stale() {
			l.keys.refresh(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Verify returns the ID token in raw if it is genuine, of the issuer, for this
// client, and of this time. Its nonce is for the caller to compare.
func (l *Login) Verify(ctx context.Context, raw string) (*IDToken, error) {
	form, err := parseUpTo(LoginLimit, raw)
	if err != nil {
		return nil, err
	}
	if form.issuer != string(l.o.Issuer) {
		return nil, fmt.Errorf("it is of issuer %q, not of %q", clip(form.issuer), l.o.Issuer)
	}
	if !slices.Contains(l.o.Algorithms, form.alg) {
		return nil, fmt.Errorf("it is signed with %q, which is not accepted", clip(form.alg))
	}
	ctx, seen := withNotes(ctx)
	verified, err := l.verifier.Verify(ctx, raw)
	switch {
	case err != nil && seen.unreachable:
		return nil, ErrKeysUnreachable
	case err != nil:
		return nil, fmt.Errorf("verify: %v", err)
	}
	if err := form.current(l.o.Now()); err != nil {
		return nil, err
	}
	if err := l.party(form, verified.Audience); err != nil {
		return nil, err
	}
	return &IDToken{
		Subject: wire.Subject(form.subject), Nonce: verified.Nonce,
		Issued: form.issued, Expires: form.expires, Claims: form.claims,
	}, nil
}

// party checks "azp" (OpenID Connect Core 3.1.3.7, 4 and 5), which go-oidc
// leaves to us: a token for several audiences must say that we asked for it.
func (l *Login) party(form *unverified, audience []string) error {
	raw, present := form.claims["azp"]
	if !present {
		if len(audience) > 1 {
			return errors.New("it is for several clients and does not say which asked for it")
		}
		return nil
	}
	if party, err := text(raw); err != nil || party != l.o.ClientID {
		return errors.New("another client asked for it")
	}
	return nil
}

// Reserved says why name must not become a user or group; empty when it may.
// prefixes are zt's own.
func Reserved(name string, prefixes ...string) string { return reserved(name, prefixes...) }
