package login

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/wire"
)

// Tokens are what a login or a refresh gave. The caller owns them.
type Tokens struct {
	// IDToken is verified; empty only after a refresh at a provider that gives
	// none then.
	IDToken     Secret
	AccessToken Secret
	// RefreshToken replaces the one before it; empty where the provider gives none.
	RefreshToken Secret
	// Expiry of the access token; zero where the provider does not say.
	Expiry time.Time
	// Claims of IDToken; zero without one.
	Claims Claims
}

// Claims are the verified claims of an ID token that the laptop has a use for.
// What a person may do is decided by the gateway from the token itself.
type Claims struct {
	Issuer   wire.Issuer
	Subject  wire.Subject
	Email    string
	Nonce    string
	IssuedAt time.Time
	Expiry   time.Time
}

// anyNonce is for tokens that answer no authorisation request.
const anyNonce = ""

// tokens checks a token response. With a nonce, an ID token is required and its
// nonce must be that one.
func (c *Client) tokens(ctx context.Context, t *oauth2.Token, nonce string) (*Tokens, error) {
	if !strings.EqualFold(t.TokenType, "Bearer") {
		return nil, untrusted("token type %q, want Bearer", t.TokenType)
	}
	got := &Tokens{
		AccessToken:  Secret(t.AccessToken),
		RefreshToken: Secret(t.RefreshToken),
		Expiry:       t.Expiry,
	}
	raw, ok := t.Extra("id_token").(string)
	if !ok || raw == "" {
		return got, nil
	}
	claims, err := c.verify(ctx, raw, t.AccessToken)
	if err != nil {
		return nil, err
	}
	if nonce != anyNonce && subtle.ConstantTimeCompare([]byte(claims.Nonce), []byte(nonce)) != 1 {
		return nil, untrusted("the id token is not the answer to this login (nonce)")
	}
	got.IDToken, got.Claims = Secret(raw), claims
	return got, nil
}

// loginTokens is tokens for a login, which is nothing without an ID token.
func (c *Client) loginTokens(ctx context.Context, t *oauth2.Token, nonce string) (*Tokens, error) {
	got, err := c.tokens(ctx, t, nonce)
	if err != nil {
		return nil, err
	}
	if got.IDToken == "" {
		return nil, untrusted("the provider gave no id token")
	}
	return got, nil
}

// verify follows OpenID Connect Core section 3.1.3.7. go-oidc looks at
// signature, algorithm, issuer, audience and time; the rest is here.
func (c *Client) verify(ctx context.Context, raw, accessToken string) (Claims, error) {
	token, err := c.verifier.Verify(ctx, raw)
	if err != nil {
		var expired *oidc.TokenExpiredError
		if errors.As(err, &expired) {
			return Claims{}, err
		}
		return Claims{}, untrusted("%v", err)
	}
	// go-oidc forgives one well-known provider a missing "https://". We do not:
	// the gateway compares the same bytes.
	if token.Issuer != string(c.cfg.Issuer) {
		return Claims{}, untrusted("id token of issuer %q", token.Issuer)
	}
	var more struct {
		AuthorizedParty string `json:"azp"`
		Email           string `json:"email"`
	}
	if err := token.Claims(&more); err != nil {
		return Claims{}, untrusted("claims of the id token: %v", err)
	}
	switch {
	case token.Subject == "" || len(token.Subject) > 255:
		return Claims{}, untrusted("id token without a valid subject")
	case more.AuthorizedParty != "" && more.AuthorizedParty != c.cfg.ClientID:
		return Claims{}, untrusted("id token made for %q (azp)", more.AuthorizedParty)
	case more.AuthorizedParty == "" && slices.ContainsFunc(token.Audience, func(a string) bool { return a != c.cfg.ClientID }):
		return Claims{}, untrusted("id token for several audiences without azp")
	}
	if token.AccessTokenHash != "" {
		if err := token.VerifyAccessToken(accessToken); err != nil {
			return Claims{}, untrusted("access token and id token do not belong together")
		}
	}
	return Claims{
		Issuer:   wire.Issuer(token.Issuer),
		Subject:  wire.Subject(token.Subject),
		Email:    more.Email,
		Nonce:    token.Nonce,
		IssuedAt: token.IssuedAt,
		Expiry:   token.Expiry,
	}, nil
}

// untrustedError is a check that failed; explain turns it into an Error.
type untrustedError struct{ text string }

func (e *untrustedError) Error() string { return e.text }

func untrusted(format string, args ...any) error {
	return &untrustedError{fmt.Sprintf(format, args...)}
}
