package login_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const nonce = "the-nonce-of-the-device-check"

// rig is a real provider and what a laptop's profile says about it.
type rig struct {
	*idp.Provider
	cfg    login.Config
	stderr *buffer
}

func start(t *testing.T, opts idp.Options) *rig {
	t.Helper()
	if opts.Algorithm == "" {
		opts.Algorithm = "ES256" // quick to make
	}
	p, err := idp.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	r := &rig{Provider: p, stderr: &buffer{}}
	r.cfg = login.Config{
		Issuer: wire.Issuer(p.Issuer()), ClientID: p.ClientID(), CAPEM: p.CAPEM(),
		Scopes: []string{"openid", "email", "groups", "offline_access"},
		Stderr: r.stderr, Timeout: 30 * time.Second,
		OpenBrowser: func(ctx context.Context, url string) error { return p.Browser().Login(ctx, url, "alice") },
	}
	return r
}

// client makes a client, failing the test if it cannot.
func (r *rig) client(t *testing.T) *login.Client {
	t.Helper()
	c, err := login.New(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// atCallback makes the person's browser go through the provider's pages and
// then hands the callback to visit instead of following it.
func (r *rig) atCallback(visit func(ctx context.Context, callback *url.URL)) {
	r.cfg.OpenBrowser = func(ctx context.Context, address string) error {
		callback, err := r.Browser().Authorize(ctx, address, "alice")
		if err != nil {
			return err
		}
		u, err := url.Parse(callback)
		if err != nil {
			return err
		}
		visit(ctx, u)
		return nil
	}
}

// buffer is a stderr that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// get asks as a plain program does; header is alternating names and values.
func get(ctx context.Context, t *testing.T, method, target string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Do(r)
	if err != nil {
		t.Errorf("%s %v: %v", method, header, err)
		return &http.Response{}
	}
	_ = resp.Body.Close()
	return resp
}

func TestAuthCode(t *testing.T) {
	t.Parallel()
	for _, opts := range []idp.Options{{}, {Algorithm: "RS256", SecondFactor: true, JWTAccessTokens: true}} {
		r := start(t, opts)
		before := time.Now().Add(-time.Second)
		tokens, err := r.client(t).AuthCode(t.Context(), nonce)
		if err != nil {
			t.Fatal(err)
		}
		want := login.Claims{Issuer: wire.Issuer(r.Issuer()), Subject: "00u-alice-7f3a", Email: "alice@example.com", Nonce: nonce}
		if diff := cmp.Diff(want, tokens.Claims, cmpopts.IgnoreFields(login.Claims{}, "IssuedAt", "Expiry")); diff != "" {
			t.Errorf("claims (-want +got):\n%s", diff)
		}
		if tokens.IDToken == "" || tokens.AccessToken == "" || tokens.RefreshToken == "" {
			t.Errorf("tokens are missing: %+v", tokens)
		}
		for name, at := range map[string]time.Time{"iat": tokens.Claims.IssuedAt, "exp": tokens.Claims.Expiry, "access": tokens.Expiry} {
			if at.Before(before) || at.After(before.Add(2*time.Hour)) {
				t.Errorf("%s is %s", name, at)
			}
		}
		if got := r.Counters(); got.CodeExchanges != 1 || got.Authorizations != 1 {
			t.Errorf("counters %+v", got)
		}
	}
}

func TestWithoutABrowserTheAddressIsWritten(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(context.Context, string) error{
		"none":  nil,
		"fails": func(context.Context, string) error { return errors.New("no display") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			r.cfg.OpenBrowser = open
			done := make(chan error, 1)
			c := r.client(t)
			go func() {
				_, err := c.AuthCode(t.Context(), nonce)
				done <- err
			}()
			if err := r.Browser().Login(t.Context(), waitForAddress(t, r), "alice"); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// waitForAddress reads stderr until there is an address to open.
func waitForAddress(t *testing.T, r *rig) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, word := range bytes.Fields([]byte(r.stderr.String())) {
			if bytes.HasPrefix(word, []byte(r.Issuer()+"/authorize?")) {
				return string(word)
			}
		}
	}
	t.Fatalf("no address on stderr: %q", r.stderr)
	return ""
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	c := r.client(t)
	first, err := c.AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Refresh(t.Context(), first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken || second.RefreshToken == "" {
		t.Error("the new refresh token is not the caller's")
	}
	if second.Claims.Subject != first.Claims.Subject || second.IDToken == "" || second.Claims.Nonce != "" {
		t.Errorf("claims after refresh: %+v", second.Claims)
	}

	r.SetFaults(idp.Faults{OmitIDTokenOnRefresh: true})
	third, err := c.Refresh(t.Context(), second.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if third.IDToken != "" || third.Claims != (login.Claims{}) || third.AccessToken == "" {
		t.Errorf("refresh without id token: %+v", third)
	}

	r.SetFaults(idp.Faults{Status: http.StatusBadGateway})
	if _, err := c.Refresh(t.Context(), third.RefreshToken); !errors.Is(err, login.ErrUnreachable) {
		t.Errorf("gateway error: %v", err)
	}
	r.SetFaults(idp.Faults{Down: true})
	if _, err := c.Refresh(t.Context(), third.RefreshToken); !errors.Is(err, login.ErrUnreachable) {
		t.Errorf("down: %v", err)
	}
	r.SetFaults(idp.Faults{TokenError: "temporarily_unavailable"})
	if _, err := c.Refresh(t.Context(), third.RefreshToken); !errors.Is(err, login.ErrRefused) || errors.Is(err, login.ErrReloginNeeded) {
		t.Errorf("refused: %v", err)
	}
	r.SetFaults(idp.Faults{})
	if _, err := c.Refresh(t.Context(), first.RefreshToken); !errors.Is(err, login.ErrReloginNeeded) {
		t.Errorf("spent token: %v", err)
	}
	if got := r.Counters(); got.Reuses != 1 || got.Refreshes != 6 {
		t.Errorf("a refresh was repeated: %+v", got)
	}
	if _, err := c.Refresh(t.Context(), ""); !errors.Is(err, login.ErrReloginNeeded) {
		t.Errorf("no token: %v", err)
	}
	_, err = c.Refresh(t.Context(), third.RefreshToken)
	if f := fault.Of(err); f.Exit != fault.ExitLogin || !cmp.Equal(f.Hints, []string{"kubectl zt login"}) {
		t.Errorf("fault %+v", f)
	}
}

// TestRefreshThatCannotBeVerified: the provider has rotated by then, and the old
// refresh token would end the login.
func TestRefreshThatCannotBeVerified(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	c := r.client(t)
	first, err := c.AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.RotateKey(); err != nil {
		t.Fatal(err)
	}
	r.SetFaults(idp.Faults{Down: true, On: []idp.Endpoint{idp.JWKS}})
	second, err := c.Refresh(t.Context(), first.RefreshToken)
	if !errors.Is(err, login.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	want := &login.Tokens{RefreshToken: second.RefreshToken}
	if diff := cmp.Diff(want, second); diff != "" || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
		t.Errorf("tokens next to the error (-want +got):\n%s", diff)
	}
	r.SetFaults(idp.Faults{})
	if _, err := c.Refresh(t.Context(), second.RefreshToken); err != nil {
		t.Errorf("after healing: %v", err)
	}
}

func TestUserinfoAndRevoke(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	c := r.client(t)
	tokens, err := c.AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Userinfo(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	want := &login.Userinfo{Subject: "00u-alice-7f3a", Email: "alice@example.com", EmailVerified: true}
	if diff := cmp.Diff(want, info); diff != "" {
		t.Errorf("userinfo (-want +got):\n%s", diff)
	}
	if err := c.Revoke(t.Context(), tokens.RefreshToken); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context(), tokens.RefreshToken); !errors.Is(err, login.ErrReloginNeeded) {
		t.Errorf("refresh after revocation: %v", err)
	}
	if _, err := c.Userinfo(t.Context(), tokens.AccessToken); err == nil {
		t.Error("userinfo after revocation")
	}
	r.SetFaults(idp.Faults{Status: http.StatusServiceUnavailable})
	if err := c.Revoke(t.Context(), tokens.RefreshToken); !errors.Is(err, login.ErrUnreachable) {
		t.Errorf("revocation that failed: %v", err)
	}
}

func TestWhatTheProviderDoesNotOffer(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	r.SetFaults(idp.Faults{Metadata: map[string]any{
		"device_authorization_endpoint": nil, "userinfo_endpoint": nil, "revocation_endpoint": nil,
	}})
	c := r.client(t)
	if _, err := c.DeviceCode(t.Context()); !errors.Is(err, login.ErrUnsupported) {
		t.Errorf("device code: %v", err)
	}
	if _, err := c.Userinfo(t.Context(), "x"); !errors.Is(err, login.ErrUnsupported) {
		t.Errorf("userinfo: %v", err)
	}
	if err := c.Revoke(t.Context(), "x"); !errors.Is(err, login.ErrUnsupported) {
		t.Errorf("revoke: %v", err)
	}
}

func TestNobodyComesBack(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	r.cfg.Timeout = 100 * time.Millisecond
	r.cfg.OpenBrowser = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	if _, err := r.client(t).AuthCode(t.Context(), nonce); !errors.Is(err, login.ErrTooLate) {
		t.Errorf("got %v", err)
	}
	r.cfg.Timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	r.cfg.OpenBrowser = func(context.Context, string) error { cancel(); return nil }
	_, err := r.client(t).AuthCode(ctx, nonce)
	if !errors.Is(err, context.Canceled) || fault.Of(err).Exit != fault.ExitInterrupted {
		t.Errorf("interrupted: %v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := login.Config{Issuer: "https://idp.example.com", ClientID: "kubectl-zt"}
	tests := []struct {
		name   string
		change func(*login.Config)
		want   string
	}{
		{"good", func(*login.Config) {}, ""},
		{"no issuer", func(c *login.Config) { c.Issuer = "" }, "issuer is missing"},
		{"http", func(c *login.Config) { c.Issuer = "http://idp.example.com" }, `issuer "http://idp.example.com" is not https`},
		{"credentials", func(c *login.Config) { c.Issuer = "https://a:b@idp.example.com" }, `issuer "https://a:xxxxx@idp.example.com" carries credentials`},
		{"query", func(c *login.Config) { c.Issuer += "?x" }, `issuer "https://idp.example.com?x": no query and no fragment allowed`},
		{"several", func(c *login.Config) { c.ClientID = ""; c.CAPEM = []byte("x") }, "client id is empty\nno certificate in the issuer's ca"},
		{"timeout", func(c *login.Config) { c.Timeout = -1 }, "timeout -1ns is negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := good
			tt.change(&c)
			got := ""
			if err := c.Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
