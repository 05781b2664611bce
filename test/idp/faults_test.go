package idp_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/test/idp"
)

// TestFaults turns each switch and looks at what a client sees of it. A switch
// that does nothing would make the tests of others pass for the wrong reason.
func TestFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		faults idp.Faults
		path   string
		want   string // in the answer or in the error
	}{
		{"down", idp.Faults{Down: true}, "/keys", "connection reset"},
		{"down elsewhere", idp.Faults{Down: true, On: []idp.Endpoint{idp.Token}}, "/keys", `"keys"`},
		{"status", idp.Faults{Status: 503}, "/keys", "Service Unavailable"},
		{"huge body", idp.Faults{HugeBody: true}, "/keys", `{"padding":"xxx`},
		{"redirect", idp.Faults{RedirectDiscovery: "https://evil.test/"}, "/.well-known/openid-configuration", "evil.test"},
		{"issuer", idp.Faults{DiscoveryIssuer: "https://evil.test"}, "/.well-known/openid-configuration", `"issuer":"https://evil.test"`},
		{"http token endpoint", idp.Faults{HTTPTokenEndpoint: true}, "/.well-known/openid-configuration", `"token_endpoint":"http://`},
		{"plain pkce", idp.Faults{PlainOnlyPKCE: true}, "/.well-known/openid-configuration", `"code_challenge_methods_supported":["plain"]`},
		{"metadata", idp.Faults{Metadata: map[string]any{"x": 1}}, "/.well-known/openid-configuration", `"x":1`},
		{"empty keys", idp.Faults{BadJWKS: idp.EmptyJWKS}, "/keys", `{"keys":[]}`},
		{"html keys", idp.Faults{BadJWKS: idp.HTMLJWKS}, "/keys", `<html>`},
		{"healthy", idp.Faults{}, "/.well-known/openid-configuration", `"authorization_response_iss_parameter_supported":true`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{Algorithm: "ES256"})
			r.SetFaults(tt.faults)
			got, err := fetch(r, tt.path)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %.300q, want %q in it", got, tt.want)
			}
		})
	}
}

func fetch(r *rig, path string) (string, error) {
	hc := &http.Client{Transport: r.Transport()}
	resp, err := hc.Get(r.Issuer() + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestFaultsOverTheNetwork(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{Algorithm: "ES256"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r.SetFaults(idp.Faults{Down: true})
	if _, err := r.Browser().Authorize(ctx, r.Issuer()+"/authorize", "alice"); err == nil || ctx.Err() != nil {
		t.Errorf("down: %v", err)
	}
	r.SetFaults(idp.Faults{Delay: time.Hour})
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := r.Browser().Authorize(short, r.Issuer()+"/authorize", "alice"); err == nil {
		t.Error("delay: answered")
	}
}

func TestCutKeysAreNotJSON(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	token := r.MintIDToken("alice", idp.Mint{})
	r.SetFaults(idp.Faults{BadJWKS: idp.CutJWKS})
	if _, err := oidc.NewRemoteKeySet(r.ctx, r.Issuer()+"/keys").VerifySignature(r.ctx, token); err == nil {
		t.Error("a cut key set verifies")
	}
}

func TestCallbackAndTokenFaults(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	verifier := oauth2.GenerateVerifier()

	r.SetFaults(idp.Faults{ErrorCallback: "no\x1b[31m"})
	if q := r.code(t, "alice", verifier); q.Get("error") != "access_denied" || q.Get("error_description") != "no\x1b[31m" || q.Has("code") {
		t.Errorf("error callback: %v", q)
	}
	r.SetFaults(idp.Faults{CallbackIssuer: "https://evil.test"})
	if q := r.code(t, "alice", verifier); q.Get("iss") != "https://evil.test" {
		t.Errorf("callback issuer: %v", q)
	}
	r.SetFaults(idp.Faults{OmitCallbackIssuer: true})
	if q := r.code(t, "alice", verifier); q.Has("iss") || !q.Has("code") {
		t.Errorf("callback without issuer: %v", q)
	}

	r.SetFaults(idp.Faults{WrongNonce: true, OmitRefreshToken: true})
	token := r.login(t, "alice")
	if token.RefreshToken != "" || r.claims(t, token.Extra("id_token").(string))["nonce"] == "the-nonce" {
		t.Errorf("token faults did nothing")
	}
	r.SetFaults(idp.Faults{OmitNonce: true, IDTokenClaims: map[string]any{"groups": nil}})
	token = r.login(t, "alice")
	if got := pick(r.claims(t, token.Extra("id_token").(string)), "nonce", "groups"); len(got) != 0 {
		t.Errorf("claims are still there: %v", got)
	}
	r.SetFaults(idp.Faults{OmitIDTokenOnRefresh: true})
	token, err := r.refresh(token.RefreshToken)
	if err != nil || token.Extra("id_token") != nil {
		t.Errorf("refresh: %v, %v", token.Extra("id_token"), err)
	}
	r.SetFaults(idp.Faults{UserinfoSubject: "somebody-else"})
	if info, err := r.oidc.UserInfo(r.ctx, oauth2.StaticTokenSource(token)); err != nil || info.Subject != "somebody-else" {
		t.Errorf("userinfo: %+v, %v", info, err)
	}
	r.SetFaults(idp.Faults{TokenError: "server_error"})
	if _, err := r.refresh(token.RefreshToken); !isOAuthError(err, "server_error") {
		t.Errorf("token error: %v", err)
	}
	r.SetFaults(idp.Faults{TokenIssuer: "https://evil.test"})
	if token, err = r.refresh(token.RefreshToken); err != nil {
		t.Fatal(err)
	}
	if _, err := r.oidc.Verifier(&oidc.Config{ClientID: r.ClientID()}).Verify(r.ctx, token.Extra("id_token").(string)); err == nil {
		t.Error("another issuer verifies")
	}
}

// TestPollingTooFast runs on a fake clock: the provider lives in the bubble.
func TestPollingTooFast(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{Algorithm: "ES256"})
	synctest.Test(t, func(t *testing.T) {
		ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: r.Transport()})
		d, err := r.config.DeviceAuth(ctx)
		if err != nil {
			t.Fatal(err)
		}
		poll := func() error {
			_, err := r.config.Exchange(ctx, "", oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
				oauth2.SetAuthURLParam("device_code", d.DeviceCode))
			return err
		}
		steps := []struct {
			wait time.Duration
			want string
		}{
			{0, "authorization_pending"},
			{5 * time.Second, "authorization_pending"},
			{time.Second, "slow_down"},
			{6 * time.Second, "slow_down"}, // 10 s are due now
			{15 * time.Second, "authorization_pending"},
			{10 * time.Minute, "expired_token"},
		}
		for i, s := range steps {
			time.Sleep(s.wait)
			if err := poll(); !isOAuthError(err, s.want) {
				t.Errorf("step %d: %v, want %s", i, err, s.want)
			}
		}
		r.SetFaults(idp.Faults{DeviceError: "expired_token"})
		if err := poll(); !isOAuthError(err, "expired_token") {
			t.Errorf("device error: %v", err)
		}
	})
}
