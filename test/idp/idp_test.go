package idp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/test/idp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a provider and the plainest client there is: x/oauth2 and go-oidc.
type rig struct {
	*idp.Provider
	ctx    context.Context
	config oauth2.Config
	oidc   *oidc.Provider
}

func start(t *testing.T, opts idp.Options) *rig {
	t.Helper()
	p, err := idp.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	r := &rig{Provider: p, ctx: oidc.ClientContext(t.Context(), &http.Client{Transport: p.Transport()})}
	if r.oidc, err = oidc.NewProvider(r.ctx, p.Issuer()); err != nil {
		t.Fatal(err)
	}
	r.config = oauth2.Config{
		ClientID: p.ClientID(), Endpoint: r.oidc.Endpoint(),
		RedirectURL: "http://127.0.0.1:45678/callback",
		Scopes:      []string{"openid", "email", "profile", "groups", "offline_access"},
	}
	r.config.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	return r
}

// code walks through the pages and returns the callback's parameters.
func (r *rig) code(t *testing.T, user, verifier string) url.Values {
	t.Helper()
	at := r.config.AuthCodeURL("the-state", oauth2.S256ChallengeOption(verifier), oidc.Nonce("the-nonce"))
	callback, err := r.Browser().Authorize(t.Context(), at, user)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(callback)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func (r *rig) login(t *testing.T, user string) *oauth2.Token {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	token, err := r.config.Exchange(r.ctx, r.code(t, user, verifier).Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (r *rig) refresh(token string) (*oauth2.Token, error) {
	return r.config.TokenSource(r.ctx, &oauth2.Token{RefreshToken: token}).Token()
}

// claims verifies an ID token as a client does.
func (r *rig) claims(t *testing.T, raw string) map[string]any {
	t.Helper()
	token, err := r.oidc.Verifier(&oidc.Config{ClientID: r.ClientID()}).Verify(r.ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	if err := token.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func pick(claims map[string]any, names ...string) map[string]any {
	out := map[string]any{}
	for _, n := range names {
		if v, ok := claims[n]; ok {
			out[n] = v
		}
	}
	return out
}

func isOAuthError(err error, code string) bool {
	var e *oauth2.RetrieveError
	return errors.As(err, &e) && e.ErrorCode == code
}

func TestLogin(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, user string
		opts       idp.Options
		want       map[string]any
	}{
		{
			name: "password", user: "alice",
			want: map[string]any{
				"sub": "00u-alice-7f3a", "email": "alice@example.com", "email_verified": true,
				"groups": []any{"employees"}, "amr": []any{"pwd"}, "nonce": "the-nonce", "azp": "kubectl-zt",
			},
		},
		{
			name: "second factor", user: "carol@example.com", opts: idp.Options{SecondFactor: true},
			want: map[string]any{
				"sub": "00u-carol-94de", "email": "carol@example.com", "email_verified": true,
				"groups": []any{"all-admins"}, "amr": []any{"pwd", "otp", "mfa"}, "nonce": "the-nonce", "azp": "kubectl-zt",
			},
		},
		{
			name: "elliptic keys and jwt access tokens", user: "bob",
			opts: idp.Options{Algorithm: "ES256", JWTAccessTokens: true},
			want: map[string]any{
				"sub": "00u-bob-b21c", "email": "bob@example.com", "email_verified": true,
				"groups": []any{"contractors"}, "amr": []any{"pwd"}, "nonce": "the-nonce", "azp": "kubectl-zt",
			},
		},
		{
			name: "unverified with odd claims", user: "mallory",
			opts: idp.Options{Users: []idp.User{{
				Login: "mallory", Subject: "m", Email: "mallory@example.com", Unverified: true,
				Claims: map[string]any{"groups": "one-text", "nonce": nil, "extra": 7},
			}}},
			want: map[string]any{
				"sub": "m", "email": "mallory@example.com", "email_verified": false,
				"groups": "one-text", "amr": []any{"pwd"}, "azp": "kubectl-zt", "extra": 7.0,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, tt.opts)
			token := r.login(t, tt.user)
			claims := r.claims(t, token.Extra("id_token").(string))
			got := pick(claims, "sub", "email", "email_verified", "groups", "amr", "nonce", "azp", "extra")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if _, ok := claims["auth_time"]; !ok {
				t.Error("no auth_time")
			}
			info, err := r.oidc.UserInfo(r.ctx, oauth2.StaticTokenSource(token))
			if err != nil {
				t.Fatal(err)
			}
			if info.Subject != tt.want["sub"] {
				t.Errorf("userinfo subject %q", info.Subject)
			}
		})
	}
}

func TestBrowserEndsAtTheLoopbackPage(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{SecondFactor: true})
	seen := make(chan url.Values, 1)
	page := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { seen <- req.URL.Query() }))
	defer page.Close()
	r.config.RedirectURL = page.URL + "/callback"
	at := r.config.AuthCodeURL("the-state", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	if err := r.Browser().Login(t.Context(), at, "alice"); err != nil {
		t.Fatal(err)
	}
	q := <-seen
	if q.Get("code") == "" || q.Get("state") != "the-state" || q.Get("iss") != r.Issuer() {
		t.Errorf("callback %v", q)
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	s256 := oauth2.S256ChallengeOption(oauth2.GenerateVerifier())
	tests := []struct {
		name string
		url  func(oauth2.Config) string
		want string
	}{
		{"no pkce", func(c oauth2.Config) string { return c.AuthCodeURL("s") }, "error=invalid_request"},
		{"plain pkce", func(c oauth2.Config) string {
			return c.AuthCodeURL("s", oauth2.SetAuthURLParam("code_challenge", "x"), oauth2.SetAuthURLParam("code_challenge_method", "plain"))
		}, "error=invalid_request"},
		{"silent", func(c oauth2.Config) string {
			return c.AuthCodeURL("s", s256, oauth2.SetAuthURLParam("prompt", "none"))
		}, "error=login_required"},
		{"other path", func(c oauth2.Config) string {
			c.RedirectURL = "http://127.0.0.1:1/elsewhere"
			return c.AuthCodeURL("s", s256)
		}, "redirect_uri is missing"},
		{"other host", func(c oauth2.Config) string {
			c.RedirectURL = "http://evil.test/callback"
			return c.AuthCodeURL("s", s256)
		}, "redirect_uri is missing"},
		{"other client", func(c oauth2.Config) string { c.ClientID = "x"; return c.AuthCodeURL("s", s256) }, "unable to retrieve client"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := r.Browser().Authorize(t.Context(), tt.url(r.config), "alice")
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || strings.Contains(got, "code=") {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

func TestCodeIsGoodOnce(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	verifier := oauth2.GenerateVerifier()

	stolen := r.code(t, "alice", verifier).Get("code")
	if _, err := r.config.Exchange(r.ctx, stolen, oauth2.VerifierOption(oauth2.GenerateVerifier())); !isOAuthError(err, "invalid_grant") {
		t.Errorf("another verifier: %v", err)
	}

	code := r.code(t, "alice", verifier).Get("code")
	token, err := r.config.Exchange(r.ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.config.Exchange(r.ctx, code, oauth2.VerifierOption(verifier)); !isOAuthError(err, "invalid_grant") {
		t.Errorf("second use: %v", err)
	}
	if _, err := r.refresh(token.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Errorf("refresh after the code came back: %v", err)
	}
}

func TestRefreshRotatesAndReuseKillsTheFamily(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	first := r.login(t, "alice")
	if err := r.SetUserGroups("alice", "employees", "on-call"); err != nil {
		t.Fatal(err)
	}
	second, err := r.refresh(first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken {
		t.Error("refresh token did not rotate")
	}
	claims := r.claims(t, second.Extra("id_token").(string))
	if diff := cmp.Diff([]any{"employees", "on-call"}, claims["groups"]); diff != "" {
		t.Errorf("groups after refresh (-want +got):\n%s", diff)
	}
	if _, err := r.refresh(first.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Errorf("reuse: %v", err)
	}
	if _, err := r.refresh(second.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Errorf("the family lives on after reuse: %v", err)
	}
	if _, err := r.oidc.UserInfo(r.ctx, oauth2.StaticTokenSource(second)); err == nil {
		t.Error("the access token lives on after reuse")
	}
	if got := r.Counters(); got.Reuses != 1 || got.Refreshes != 4-1 {
		t.Errorf("counters %+v", got)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	token := r.login(t, "alice")
	hc := &http.Client{Transport: r.Transport()}
	resp, err := hc.PostForm(r.Issuer()+"/revoke", url.Values{
		"token": {token.RefreshToken}, "token_type_hint": {"refresh_token"}, "client_id": {r.ClientID()},
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %s", resp.Status)
	}
	if _, err := r.refresh(token.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Errorf("refresh after revocation: %v", err)
	}
	if _, err := r.oidc.UserInfo(r.ctx, oauth2.StaticTokenSource(token)); err == nil {
		t.Error("userinfo after revocation")
	}
}

func TestEndSession(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	token := r.login(t, "alice")
	hc := &http.Client{Transport: r.Transport()}
	resp, err := hc.Get(r.Issuer() + "/end_session?id_token_hint=" + token.Extra("id_token").(string))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Request.URL.Path != "/logged-out" || resp.StatusCode != http.StatusOK {
		t.Errorf("ended at %s, %d", resp.Request.URL, resp.StatusCode)
	}
	if _, err := r.refresh(token.RefreshToken); !isOAuthError(err, "invalid_grant") {
		t.Errorf("refresh after end of session: %v", err)
	}
}

func TestKeyRotation(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	old := r.login(t, "alice").Extra("id_token").(string)
	r.claims(t, old)
	if _, err := r.RotateKey(); err != nil {
		t.Fatal(err)
	}
	fresh := r.login(t, "alice").Extra("id_token").(string)
	r.claims(t, fresh)
	r.claims(t, old)
	r.RetireKeys()
	set := oidc.NewRemoteKeySet(r.ctx, r.Issuer()+"/keys")
	if _, err := set.VerifySignature(r.ctx, fresh); err != nil {
		t.Errorf("current key: %v", err)
	}
	if _, err := set.VerifySignature(r.ctx, old); err == nil {
		t.Error("a retired key still verifies")
	}
}

func TestMintIDToken(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	foreign := start(t, idp.Options{Algorithm: "ES256"})
	verifier := r.oidc.Verifier(&oidc.Config{ClientID: r.ClientID()})
	tests := []struct {
		name string
		mint idp.Mint
		want string // "" = accepted
	}{
		{"good", idp.Mint{}, ""},
		{"other rsa algorithm", idp.Mint{Algorithm: "PS256"}, "unexpected signature algorithm"},
		{"none", idp.Mint{Algorithm: "none"}, "unexpected signature algorithm"},
		{"nOnE", idp.Mint{Algorithm: "nOnE"}, "malformed jwt"},
		{"hmac with the public key", idp.Mint{Algorithm: "HS256", Secret: []byte("public")}, "unexpected signature algorithm"},
		{"kid of nobody", idp.Mint{Header: map[string]any{"kid": "x"}}, "failed to verify"},
		{"audience", idp.Mint{Claims: map[string]any{"aud": "other"}}, "expected audience"},
		{"expired", idp.Mint{Claims: map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}}, "token is expired"},
		{"payload", idp.Mint{Payload: []byte(`{"iss":"a","iss":"b"}`)}, "different provider"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := verifier.Verify(r.ctx, r.MintIDToken("alice", tt.mint))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := verifier.Verify(r.ctx, foreign.MintIDToken("alice", idp.Mint{Claims: map[string]any{"iss": r.Issuer()}})); err == nil {
		t.Error("a foreign key verifies")
	}
}

func TestDeviceGrant(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		act  func(*idp.Browser, context.Context, *oauth2.DeviceAuthResponse) error
		want string // error code, "" = tokens
	}{
		{"allow", func(b *idp.Browser, ctx context.Context, d *oauth2.DeviceAuthResponse) error {
			return b.ApproveDevice(ctx, d.VerificationURI, strings.ToLower(d.UserCode), "bob")
		}, ""},
		{"deny", func(b *idp.Browser, ctx context.Context, d *oauth2.DeviceAuthResponse) error {
			return b.DenyDevice(ctx, d.VerificationURIComplete, d.UserCode, "bob")
		}, "access_denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{DeviceInterval: time.Second, SecondFactor: true})
			d, err := r.config.DeviceAuth(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.act(r.Browser(), t.Context(), d); err != nil {
				t.Fatal(err)
			}
			token, err := r.config.DeviceAccessToken(r.ctx, d)
			if tt.want != "" {
				if !isOAuthError(err, tt.want) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := pick(r.claims(t, token.Extra("id_token").(string)), "sub", "nonce", "amr", "groups")
			want := map[string]any{"sub": "00u-bob-b21c", "amr": []any{"pwd", "otp", "mfa"}, "groups": []any{"contractors"}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if _, err := r.refresh(token.RefreshToken); err != nil {
				t.Errorf("refresh: %v", err)
			}
		})
	}
}

func TestWrongAnswersOnThePages(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{SecondFactor: true})
	at := r.config.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	b := r.Browser()
	if err := r.EditUser("alice", func(u *idp.User) { u.Claims = map[string]any{"x": 1} }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Authorize(t.Context(), at, "nobody"); err == nil {
		t.Error("nobody signed in")
	}
	if err := b.ApproveDevice(t.Context(), r.Issuer()+"/device", "AAAA-BBBB", "alice"); err == nil {
		t.Error("an unknown code was approved")
	}
	hc := &http.Client{Transport: r.Transport()}
	resp, err := hc.PostForm(r.Issuer()+"/login", url.Values{"id": {"x"}, "username": {"alice"}, "password": {"wrong"}})
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("wrong password: %v %v", resp, err)
	}
}
