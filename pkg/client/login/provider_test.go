package login_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/test/idp"
)

func newHTTPClient(r *rig) *http.Client { return &http.Client{Transport: r.Transport()} }

func TestV007Discovery(t *testing.T) {
	t.Parallel()
	var strangers atomic.Int64
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strangers.Add(1) }))
	t.Cleanup(stranger.Close)
	set := func(name string, value any) idp.Faults {
		return idp.Faults{Metadata: map[string]any{name: value}}
	}
	tests := []struct {
		name   string
		faults idp.Faults
		want   string
	}{
		{"another issuer", idp.Faults{DiscoveryIssuer: "https://evil.test"}, `the provider calls itself "https://evil.test"`},
		{"trailing slash", idp.Faults{DiscoveryIssuer: "/"}, "the provider calls itself"},
		{"no issuer", set("issuer", nil), "the provider calls itself"},
		{"http token endpoint", idp.Faults{HTTPTokenEndpoint: true}, "is not https"},
		{"http keys", set("jwks_uri", "http://127.0.0.1/keys"), "is not https"},
		{"http authorisation", set("authorization_endpoint", "http://127.0.0.1/a"), "is not https"},
		{"script as authorisation", set("authorization_endpoint", "javascript:alert(1)"), "is not a URL"},
		{"authorisation that turns the terminal round (V077)", set("authorization_endpoint", "https://idp.test/a\u202e"), "is not printable ASCII"},
		{"authorisation that clears the terminal (V077)", set("authorization_endpoint", "https://idp.test/a\u009b2J"), "is not printable ASCII"},
		{"http device endpoint", set("device_authorization_endpoint", "http://127.0.0.1/d"), "is not https"},
		{"http userinfo", set("userinfo_endpoint", "http://127.0.0.1/u"), "is not https"},
		{"http revocation", set("revocation_endpoint", "http://127.0.0.1/r"), "is not https"},
		{"no token endpoint", set("token_endpoint", nil), "token_endpoint is missing"},
		{"no keys", set("jwks_uri", nil), "jwks_uri is missing"},
		{"redirect to another host", idp.Faults{RedirectDiscovery: stranger.URL + "/.well-known/openid-configuration"}, "redirects to another host"},
		{"redirect to no tls", idp.Faults{RedirectDiscovery: "http://127.0.0.1:1/"}, "redirects to another host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			if tt.faults.DiscoveryIssuer == "/" {
				tt.faults.DiscoveryIssuer = r.Issuer() + "/"
			}
			r.SetFaults(tt.faults)
			_, err := login.New(t.Context(), r.cfg)
			if f := fault.Of(err); f != nil && len(f.Hints) == 0 {
				t.Errorf("no next command: %v", err)
			}
			if !errors.Is(err, login.ErrUntrusted) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if got := r.Counters(); got.Discoveries != 1 || got.Tokens+got.Authorizations+got.DeviceAuthorizations != 0 {
				t.Errorf("more than discovery was asked for: %+v", got)
			}
			if got := strangers.Load(); got != 0 {
				t.Errorf("the stranger was called %d times", got)
			}
		})
	}
}

// redirecting answers POSTs with a redirect, also within the same host.
type redirecting struct {
	base http.RoundTripper
	to   string
}

func (f redirecting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost {
		return f.base.RoundTrip(r)
	}
	return &http.Response{
		StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {f.to}},
		Body: io.NopCloser(strings.NewReader("")), Request: r,
	}, nil
}

func TestARequestWithASecretIsNotRedirected(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	for _, to := range []string{"https://evil.test/", r.Issuer() + "/oauth/token"} {
		r.cfg.Transport = redirecting{r.Transport(), to}
		c := r.client(t)
		_, err := c.Refresh(t.Context(), "the-refresh-token")
		if !errors.Is(err, login.ErrUntrusted) || !strings.Contains(err.Error(), "redirects a request that carries a secret") {
			t.Errorf("refresh to %s: %v", to, err)
		}
		if err := c.Revoke(t.Context(), "the-refresh-token"); !errors.Is(err, login.ErrUntrusted) {
			t.Errorf("revoke to %s: %v", to, err)
		}
		if _, err := c.DeviceCode(t.Context()); !errors.Is(err, login.ErrUntrusted) {
			t.Errorf("device code to %s: %v", to, err)
		}
	}
	if got := r.Counters(); got.Tokens+got.Revocations+got.DeviceAuthorizations != 0 {
		t.Errorf("a redirect was followed: %+v", got)
	}
}

// operations are all ways to make a provider answer, by the endpoint that does.
var operations = []struct {
	endpoint idp.Endpoint
	do       func(context.Context, *login.Client, *login.Tokens) error
}{
	{idp.Token, func(ctx context.Context, c *login.Client, at *login.Tokens) error {
		_, err := c.Refresh(ctx, at.RefreshToken)
		return err
	}},
	{idp.Userinfo, func(ctx context.Context, c *login.Client, at *login.Tokens) error {
		_, err := c.Userinfo(ctx, at.AccessToken)
		return err
	}},
	{idp.DeviceAuthorization, func(ctx context.Context, c *login.Client, _ *login.Tokens) error {
		_, err := c.DeviceCode(ctx)
		return err
	}},
}

func TestV015EndlessAndSlowAnswers(t *testing.T) {
	t.Parallel()
	t.Run("endless", func(t *testing.T) {
		t.Parallel()
		r := start(t, idp.Options{})
		c := r.client(t)
		tokens, err := c.AuthCode(t.Context(), nonce)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for _, o := range operations {
			r.SetFaults(idp.Faults{HugeBody: true, On: []idp.Endpoint{o.endpoint}})
			if err := o.do(ctx, c, tokens); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
				t.Errorf("%s: %v", o.endpoint, err)
			}
		}
		r.SetFaults(idp.Faults{HugeBody: true, On: []idp.Endpoint{idp.Discovery}})
		if _, err := login.New(ctx, r.cfg); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
			t.Errorf("discovery: %v", err)
		}
		r.SetFaults(idp.Faults{HugeBody: true, On: []idp.Endpoint{idp.JWKS}})
		if _, err := r.client(t).AuthCode(ctx, nonce); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
			t.Errorf("keys: %v", err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		r := start(t, idp.Options{})
		c := r.client(t)
		tokens, err := c.AuthCode(t.Context(), nonce)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			cfg := r.cfg
			cfg.Transport = r.Transport()
			c, err := login.New(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range operations {
				r.SetFaults(idp.Faults{Delay: time.Hour, On: []idp.Endpoint{o.endpoint}})
				began := time.Now()
				if err := o.do(t.Context(), c, tokens); !errors.Is(err, login.ErrUnreachable) || !strings.Contains(err.Error(), "did not answer in time") {
					t.Errorf("%s: %v", o.endpoint, err)
				}
				if took := time.Since(began); took != 30*time.Second {
					t.Errorf("%s: gave up after %s", o.endpoint, took)
				}
			}
		})
	})
}

// TestInterruptedRequests ends the context while the provider is silent: also
// x/oauth2's device authorisation, which takes no context, must end at once.
func TestInterruptedRequests(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	c := r.client(t)
	tokens, err := c.AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	r.SetFaults(idp.Faults{Delay: time.Hour})
	for _, o := range operations {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(50*time.Millisecond, cancel)
		began := time.Now()
		if err := o.do(ctx, c, tokens); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", o.endpoint, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: ended after %s", o.endpoint, took)
		}
		timer.Stop()
		cancel()
	}
}

func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	r, other := start(t, idp.Options{}), start(t, idp.Options{})
	r.cfg.CAPEM = other.CAPEM()
	_, err := login.New(t.Context(), r.cfg)
	if !errors.Is(err, login.ErrUntrusted) || !strings.Contains(err.Error(), "certificate of "+r.Issuer()) {
		t.Errorf("got %v", err)
	}
	if got := r.Counters().Discoveries; got != 0 {
		t.Errorf("%d requests went through", got)
	}
}

// answering answers one path with a document of its own.
type answering struct {
	base http.RoundTripper
	path string
	json map[string]any
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != a.path {
		return a.base.RoundTrip(r)
	}
	body, err := json.Marshal(a.json)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}
