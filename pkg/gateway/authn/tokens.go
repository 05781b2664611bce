package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/wire"
)

// TokenType is the "typ" of control's access tokens (RFC 9068).
const TokenType = "at+jwt"

// TokensOptions say how control's own access tokens are verified.
type TokensOptions struct {
	// Issuer is the exact "iss" of control's tokens.
	Issuer string
	// Keys returns control's public keys as delivered with the state. There is
	// no discovery of oneself. It is called for every token that is not in the
	// cache, from any goroutine.
	Keys func() jose.JSONWebKeySet
	// UsernamePrefix is put before the person's name toward Kubernetes, for
	// example "zt:".
	UsernamePrefix string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Checked is told "hit", "ok" or "refused"; may be nil.
	Checked func(result string)
}

// Tokens verifies control's access tokens for any number of clusters.
type Tokens struct {
	o        TokensOptions
	verifier *oidc.IDTokenVerifier
	cache    *cache
}

// NewTokens starts nothing.
func NewTokens(o TokensOptions) *Tokens {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Checked == nil {
		o.Checked = func(string) {}
	}
	t := &Tokens{o: o, cache: newCache(o.Now)}
	t.verifier = oidc.NewVerifier(o.Issuer, controlKeys{o.Keys}, &oidc.Config{
		// The audience is one of many clusters: For compares it.
		SkipClientIDCheck:    true,
		SupportedSigningAlgs: []string{string(jose.ES256)},
		Now:                  o.Now,
	})
	return t
}

// Issuer is the "iss" that tells control's tokens from all others.
func (t *Tokens) Issuer() string { return t.o.Issuer }

// UsernamePrefix is what stands before a person's name toward Kubernetes.
func (t *Tokens) UsernamePrefix() string { return t.o.UsernamePrefix }

// For is the authenticator of one cluster: control's tokens for that cluster's
// UID, and the tokens of further, nil where no other issuer is accepted. The
// token's own "iss" decides which of the two may judge it, and that is final.
func (t *Tokens) For(uid wire.ClusterUID, further *FurtherIssuers) Authenticator {
	return clusterTokens{t, uid, further}
}

type clusterTokens struct {
	tokens   *Tokens
	audience wire.ClusterUID
	further  *FurtherIssuers
}

func (c clusterTokens) Authenticate(ctx context.Context, raw string) (*Identity, *wire.Refusal) {
	sum := digest(raw)
	if entry, ok := c.tokens.cache.get(sum); ok {
		return c.admit(entry, "hit")
	}
	if c.further != nil {
		if identity, ok := c.further.remembered(sum); ok {
			return identity, nil
		}
	}
	form, err := parse(raw)
	switch {
	case err != nil:
		c.tokens.o.Checked("refused")
		return nil, refuseForm(err)
	case c.further != nil && form.issuer != c.tokens.o.Issuer:
		return c.further.authenticate(ctx, raw, form, sum)
	}
	identity, aud, refusal := c.tokens.verify(ctx, raw, form)
	if refusal != nil {
		c.tokens.o.Checked("refused")
		return nil, refusal
	}
	entry := cached{identity: identity, audience: aud}
	c.tokens.cache.put(sum, entry, identity.Expires)
	return c.admit(entry, "ok")
}

// admit compares the audience, which the cache holds for any cluster.
func (c clusterTokens) admit(entry cached, result string) (*Identity, *wire.Refusal) {
	// The empty audience would be everybody's.
	if entry.audience != string(c.audience) || c.audience == "" {
		c.tokens.o.Checked("refused")
		return nil, because(invalid("it is for another cluster"), "aud: expected %q, got %.200q", c.audience, entry.audience)
	}
	c.tokens.o.Checked(result)
	return entry.identity, nil
}

func (t *Tokens) verify(ctx context.Context, raw string, form *unverified) (*Identity, string, *wire.Refusal) {
	if form.issuer != t.o.Issuer || form.typ != TokenType || form.alg != string(jose.ES256) {
		return nil, "", because(invalid("it is no access token of this gateway"), "iss, typ, alg: expected %q, %q, %q, got %.200q, %q, %q",
			t.o.Issuer, TokenType, jose.ES256, form.issuer, clip(form.typ), clip(form.alg))
	}
	verified, err := t.verifier.Verify(ctx, raw)
	var expired *oidc.TokenExpiredError
	if errors.As(err, &expired) {
		return nil, "", wire.Refuse(wire.ReasonTokenExpired, "", "the access token has expired")
	}
	if err != nil {
		return nil, "", invalid("its signature does not verify")
	}
	if err := form.current(t.o.Now()); err != nil {
		return nil, "", refuseTime(err)
	}
	var claims wire.TokenClaims
	if err := verified.Claims(&claims); err != nil {
		return nil, "", invalid("its claims cannot be read")
	}
	identity, refusal := t.identity(form, &claims)
	return identity, string(claims.Audience), refusal
}

func (t *Tokens) identity(form *unverified, claims *wire.TokenClaims) (*Identity, *wire.Refusal) {
	if claims.Session == "" || claims.Confirm.JKT == "" || claims.User.Issuer == "" || claims.User.Subject == "" {
		return nil, invalid("it names no session, device key or person")
	}
	name := t.o.UsernamePrefix + string(claims.User.Name)
	if why := reserved(string(claims.User.Name), t.o.UsernamePrefix); why != "" {
		return nil, refuseReserved("user name", why)
	}
	if why := reserved(name); why != "" {
		return nil, refuseReserved("user name", why)
	}
	for _, role := range slices.Concat(claims.Roles, claims.Revoked) {
		if why := reserved(string(role)); why != "" || strings.ContainsAny(string(role), ":/") {
			return nil, refuseReserved("role", "is none")
		}
	}
	return &Identity{
		Kind:    Control,
		User:    claims.User,
		Name:    name,
		Issued:  form.issued,
		Expires: form.expires,
		Session: claims.Session,
		Key:     claims.Confirm.JKT,
		Roles:   claims.Roles,
		Revoked: claims.Revoked,
		Device:  claims.Device,
		Epoch:   claims.Epoch,
	}, nil
}

func refuseTime(err error) *wire.Refusal {
	if errors.Is(err, errExpired) {
		return wire.Refuse(wire.ReasonTokenExpired, "", "the access token has expired")
	}
	return invalid("%v", err)
}

// controlKeys is go-oidc's KeySet over control's present keys.
type controlKeys struct{ keys func() jose.JSONWebKeySet }

func (c controlKeys) VerifySignature(_ context.Context, raw string) ([]byte, error) {
	return verifyWith(c.keys().Keys, raw, []jose.SignatureAlgorithm{jose.ES256})
}

var (
	errUnknownKey   = errors.New("no key with this id")
	errBadSignature = errors.New("signature does not verify")
)

// verifyWith checks raw with the key that its header names, or, when it names
// none, with each key.
func verifyWith(keys []jose.JSONWebKey, raw string, algorithms []jose.SignatureAlgorithm) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return nil, fmt.Errorf("parse: %v", err)
	}
	header := signed.Signatures[0].Header
	found := false
	for i := range keys {
		key := &keys[i]
		if header.KeyID != "" && key.KeyID != header.KeyID || !usable(key, header.Algorithm) {
			continue
		}
		found = true
		if payload, err := signed.Verify(key); err == nil {
			return payload, nil
		}
	}
	if found && header.KeyID != "" {
		return nil, errBadSignature
	}
	return nil, errUnknownKey
}

// usable reports whether key may verify alg: a public key for signatures, and
// of no other algorithm if it says of which.
func usable(key *jose.JSONWebKey, alg string) bool {
	return key.IsPublic() && key.Valid() &&
		(key.Use == "" || key.Use == "sig") &&
		(key.Algorithm == "" || key.Algorithm == alg)
}

// algorithms are all that a further issuer may sign with: asymmetric, SHA-256
// or better.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512,
}

func knownAlgorithm(alg string) bool {
	return slices.Contains(algorithms, jose.SignatureAlgorithm(alg))
}

// without returns the members of a JSON object but those named.
func without(payload []byte, names ...string) ([]byte, bool, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, false, err
	}
	removed := false
	for _, name := range names {
		if _, ok := members[name]; ok {
			delete(members, name)
			removed = true
		}
	}
	if !removed {
		return payload, false, nil
	}
	rest, err := json.Marshal(members)
	return rest, true, err
}
