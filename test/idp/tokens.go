package idp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// family is everything that grew out of one login: when one of its refresh
// tokens shows up twice, somebody has a copy, and all of it ends
// (RFC 9700 section 4.14.2).
type family struct {
	id       string
	client   string
	subject  string
	audience []string
	scopes   []string
	amr      []string
	authTime time.Time
	revoked  bool
}

type refreshToken struct {
	family  string
	expires time.Time
	used    bool
}

type accessToken struct {
	family  string
	subject string
	scopes  []string
	expires time.Time
}

// refreshRequest is a family seen as a token request. It must not have the
// methods of op.AuthRequest, or the library would take it for one.
type refreshRequest struct {
	family family
	scopes []string
}

var _ op.RefreshTokenRequest = (*refreshRequest)(nil)

func (r *refreshRequest) GetAMR() []string                 { return r.family.amr }
func (r *refreshRequest) GetAudience() []string            { return slices.Clone(r.family.audience) }
func (r *refreshRequest) GetAuthTime() time.Time           { return r.family.authTime }
func (r *refreshRequest) GetClientID() string              { return r.family.client }
func (r *refreshRequest) GetScopes() []string              { return r.scopes }
func (r *refreshRequest) GetSubject() string               { return r.family.subject }
func (r *refreshRequest) SetCurrentScopes(scopes []string) { r.scopes = scopes }

// CreateAccessToken serves logins without offline_access.
func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.newFamily(r)
	if err != nil {
		return "", time.Time{}, err
	}
	id, expires := s.newAccessToken(f, r.GetScopes())
	return id, expires, nil
}

// CreateAccessAndRefreshTokens starts a family, or rotates: the old token is
// spent in the same breath in which the new one is made, so of two parallel
// refreshes one ends the family.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, current string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.rotateOrStart(r, current)
	if err != nil {
		return "", "", time.Time{}, err
	}
	token := randomID()
	s.refresh[token] = &refreshToken{family: f.id, expires: time.Now().Add(s.refreshLife)}
	id, expires := s.newAccessToken(f, r.GetScopes())
	return id, token, expires, nil
}

func (s *storage) rotateOrStart(r op.TokenRequest, current string) (*family, error) {
	if current == "" {
		return s.newFamily(r)
	}
	old, f, err := s.spendable(current)
	if err != nil {
		return nil, oidc.ErrInvalidGrant().WithParent(err)
	}
	old.used = true
	return f, nil
}

// TokenRequestByRefreshToken is the library's first look at a refresh token.
func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, f, err := s.spendable(token)
	if err != nil {
		return nil, err
	}
	return &refreshRequest{family: *f, scopes: slices.Clone(f.scopes)}, nil
}

// spendable finds a refresh token that may still be used. One that was used
// already ends its family. The caller holds mu.
func (s *storage) spendable(token string) (*refreshToken, *family, error) {
	t, ok := s.refresh[token]
	if !ok {
		return nil, nil, op.ErrInvalidRefreshToken
	}
	f := s.families[t.family]
	if t.used {
		if !f.revoked {
			s.reused()
		}
		s.revokeFamily(f.id)
		return nil, nil, fmt.Errorf("refresh token was used before: %w", op.ErrInvalidRefreshToken)
	}
	if f.revoked || time.Now().After(t.expires) {
		return nil, nil, fmt.Errorf("refresh token is revoked or expired: %w", op.ErrInvalidRefreshToken)
	}
	return t, f, nil
}

// newFamily opens a family for a fresh login. The caller holds mu.
func (s *storage) newFamily(r op.TokenRequest) (*family, error) {
	f := &family{
		id:       randomID(),
		client:   s.client.id,
		subject:  r.GetSubject(),
		audience: slices.Clone(r.GetAudience()),
		scopes:   slices.Clone(r.GetScopes()),
	}
	switch r := r.(type) {
	case *authRequest:
		f.amr, f.authTime = r.amr, r.authTime
		s.spent[r.code] = f.id
	case *op.DeviceAuthorizationState:
		f.amr, f.authTime = r.AMR, r.AuthTime
	default:
		return nil, fmt.Errorf("unexpected token request %T", r)
	}
	s.families[f.id] = f
	return f, nil
}

func (s *storage) newAccessToken(f *family, scopes []string) (string, time.Time) {
	id, expires := randomID(), time.Now().Add(s.accessLife)
	s.access[id] = &accessToken{family: f.id, subject: f.subject, scopes: slices.Clone(scopes), expires: expires}
	return id, expires
}

// revokeFamily ends everything that came out of one login. The caller holds mu.
func (s *storage) revokeFamily(id string) {
	if f, ok := s.families[id]; ok {
		f.revoked = true
	}
	for token, a := range s.access {
		if a.family == id {
			delete(s.access, token)
		}
	}
}

// TerminateSession ends all families of a person at a client (end_session).
func (s *storage) TerminateSession(_ context.Context, subject, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.families {
		if f.subject == subject {
			s.revokeFamily(f.id)
		}
	}
	return nil
}

// GetRefreshTokenInfo tells the revocation endpoint which tokens are refresh tokens.
func (s *storage) GetRefreshTokenInfo(_ context.Context, clientID, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.refresh[token]
	if !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	f := s.families[t.family]
	if f.client != clientID {
		return "", "", errors.New("token of another client")
	}
	return f.subject, token, nil
}

// RevokeToken ends a whole family by its refresh token, or one access token by
// its id. An unknown token is no error (RFC 7009 section 2.2).
func (s *storage) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.refresh[token]; ok {
		s.revokeFamily(t.family)
		return nil
	}
	delete(s.access, token)
	return nil
}
