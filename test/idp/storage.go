package idp

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// storage is the provider's whole state, in memory. The library reads what it
// is handed without a lock, so everything that leaves here is a copy.
type storage struct {
	client      *client
	accessLife  time.Duration
	refreshLife time.Duration
	reused      func() // told of every refresh token that comes back a second time

	mu       sync.Mutex
	users    []User
	keys     []signingKey // newest first; the first one signs
	requests map[string]*authRequest
	codes    map[string]string // code → id of its request
	spent    map[string]string // redeemed code → family of its tokens
	access   map[string]*accessToken
	refresh  map[string]*refreshToken
	families map[string]*family
	devices  map[string]*deviceGrant // by device code
}

var (
	_ op.Storage                    = (*storage)(nil)
	_ op.CanSetUserinfoFromRequest  = (*storage)(nil)
	_ op.DeviceAuthorizationStorage = (*storage)(nil)
)

// authRequest is one authorisation request on its way through the login pages.
type authRequest struct {
	id       string
	request  oidc.AuthRequest
	code     string
	subject  string
	amr      []string
	authTime time.Time
	done     bool
}

var _ op.AuthRequest = (*authRequest)(nil)

func (a *authRequest) GetID() string                      { return a.id }
func (a *authRequest) GetACR() string                     { return "" }
func (a *authRequest) GetAMR() []string                   { return a.amr }
func (a *authRequest) GetAudience() []string              { return []string{a.request.ClientID} }
func (a *authRequest) GetAuthTime() time.Time             { return a.authTime }
func (a *authRequest) GetClientID() string                { return a.request.ClientID }
func (a *authRequest) GetNonce() string                   { return a.request.Nonce }
func (a *authRequest) GetRedirectURI() string             { return a.request.RedirectURI }
func (a *authRequest) GetResponseType() oidc.ResponseType { return a.request.ResponseType }
func (a *authRequest) GetResponseMode() oidc.ResponseMode { return a.request.ResponseMode }
func (a *authRequest) GetScopes() []string                { return a.request.Scopes }
func (a *authRequest) GetState() string                   { return a.request.State }
func (a *authRequest) GetSubject() string                 { return a.subject }
func (a *authRequest) Done() bool                         { return a.done }
func (a *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if a.request.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: a.request.CodeChallenge, Method: a.request.CodeChallengeMethod}
}

// CreateAuthRequest refuses what the library would let through: no PKCE or the
// plain method, and a silent login, since there is no session to be silent about.
func (s *storage) CreateAuthRequest(_ context.Context, r *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if r.CodeChallenge == "" || r.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge with method S256 required")
	}
	if slices.Contains(r.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	a := &authRequest{id: randomID(), request: *r}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[a.id] = a
	copied := *a
	return &copied, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.requests[id]
	if !ok {
		return nil, fmt.Errorf("unknown authorization request")
	}
	copied := *a
	return &copied, nil
}

// AuthRequestByCode takes the code out of circulation whatever comes next, also
// when the verifier turns out wrong. A code that comes back after it was
// redeemed takes its tokens with it (RFC 6749 section 4.1.2).
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, again := s.spent[code]; again {
		s.revokeFamily(id)
		return nil, errors.New("code was redeemed before")
	}
	a, ok := s.requests[s.codes[code]]
	if !ok {
		return nil, errors.New("unknown code")
	}
	delete(s.codes, code)
	copied := *a
	return &copied, nil
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.requests[id]
	if !ok {
		return errors.New("unknown authorization request")
	}
	a.code = code
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

// authenticated records that a person has passed the pages for request id.
func (s *storage) authenticated(id, subject string, amr []string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.requests[id]
	if !ok {
		return errors.New("unknown authorization request")
	}
	a.subject, a.amr, a.authTime, a.done = subject, amr, now, true
	return nil
}

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.client.id {
		return nil, oidc.ErrInvalidClient().WithDescription("unknown client")
	}
	return s.client, nil
}

// AuthorizeClientIDSecret always refuses: the only client is public.
func (s *storage) AuthorizeClientIDSecret(context.Context, string, string) error {
	return errors.New("the client has no secret")
}

// SetUserinfoFromScopes does nothing, as the library asks; see SetUserinfoFromRequest.
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest fills the ID token. Everything goes through the free
// claims because the library's own fields drop a false email_verified.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	u, ok := s.user(r.GetSubject())
	if !ok {
		return errors.New("unknown user")
	}
	info.Subject = u.Subject
	for k, v := range u.claims(scopes) {
		info.AppendClaims(k, v)
	}
	return nil
}

func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, tokenID, subject, _ string) error {
	s.mu.Lock()
	t, ok := s.access[tokenID]
	s.mu.Unlock()
	if !ok || t.subject != subject || time.Now().After(t.expires) {
		return errors.New("access token is unknown, revoked or expired")
	}
	u, ok := s.user(subject)
	if !ok {
		return errors.New("unknown user")
	}
	claims := u.claims(t.scopes)
	overlay(claims, u.Claims)
	info.Subject = u.Subject
	for k, v := range claims {
		info.AppendClaims(k, v)
	}
	return nil
}

func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errors.New("introspection is not offered")
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("clients have no keys here")
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("the jwt profile is not offered")
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.signer(), nil }

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.signer().alg}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]op.Key, 0, len(s.keys))
	for _, k := range s.keys {
		keys = append(keys, publicKey{k})
	}
	return keys, nil
}

func (s *storage) Health(context.Context) error { return nil }

// randomID is 160 random bits in lower-case base32: safe in URLs, headers and logs.
func randomID() string {
	var b [20]byte
	rand.Read(b[:]) // never fails; crypto/rand ends the program instead
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
