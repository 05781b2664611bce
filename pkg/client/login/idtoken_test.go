package login_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/test/idp"
)

func TestV003Nonce(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]idp.Faults{
		"wrong":   {WrongNonce: true},
		"missing": {OmitNonce: true},
		"empty":   {IDTokenClaims: map[string]any{"nonce": ""}},
		"longer":  {IDTokenClaims: map[string]any{"nonce": nonce + "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			r.SetFaults(faults)
			tokens, err := r.client(t).AuthCode(t.Context(), nonce)
			if tokens != nil || !errors.Is(err, login.ErrUntrusted) || !strings.Contains(err.Error(), "nonce") {
				t.Errorf("got %v, %v", tokens, err)
			}
		})
	}
	r := start(t, idp.Options{})
	if _, err := r.client(t).AuthCode(t.Context(), ""); err == nil || r.Counters().Authorizations != 0 {
		t.Errorf("a login without a nonce was started: %v", err)
	}
}

// TestIDTokenThatIsNotOurs has the provider itself sign what we must not take.
func TestIDTokenThatIsNotOurs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		faults idp.Faults
		want   string
	}{
		{"issuer", idp.Faults{TokenIssuer: "https://evil.test"}, "different provider"},
		{"audience", idp.Faults{IDTokenClaims: map[string]any{"aud": "other"}}, "expected audience"},
		{"azp", idp.Faults{IDTokenClaims: map[string]any{"azp": "other"}}, "azp"},
		{"two audiences without azp", idp.Faults{IDTokenClaims: map[string]any{"aud": []string{"kubectl-zt", "other"}, "azp": nil}}, "azp"},
		{"expired", idp.Faults{IDTokenClaims: map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}}, "expired"},
		{"not yet", idp.Faults{IDTokenClaims: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}}, "nbf"},
		{"no expiry", idp.Faults{IDTokenClaims: map[string]any{"exp": nil}}, "expired"},
		{"no subject", idp.Faults{IDTokenClaims: map[string]any{"sub": nil}}, "subject"},
		{"other access token", idp.Faults{IDTokenClaims: map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}}, "do not belong together"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			r.SetFaults(tt.faults)
			tokens, err := r.client(t).AuthCode(t.Context(), nonce)
			if tokens != nil || !errors.Is(err, login.ErrUntrusted) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", tokens, err, tt.want)
			}
		})
	}
}

func TestKeysThatCannotBeRead(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		faults idp.Faults
		want   error
	}{
		{"empty", idp.Faults{BadJWKS: idp.EmptyJWKS}, login.ErrUntrusted},
		{"html", idp.Faults{BadJWKS: idp.HTMLJWKS}, login.ErrUntrusted},
		{"cut", idp.Faults{BadJWKS: idp.CutJWKS}, login.ErrUntrusted},
		{"down", idp.Faults{Down: true, On: []idp.Endpoint{idp.JWKS}}, login.ErrUnreachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			r.SetFaults(tt.faults)
			if _, err := r.client(t).AuthCode(t.Context(), nonce); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestKeyRotationBetweenLoginAndRefresh(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	c := r.client(t)
	tokens, err := c.AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.RotateKey(); err != nil {
		t.Fatal(err)
	}
	r.RetireKeys()
	if _, err := c.Refresh(t.Context(), tokens.RefreshToken); err != nil {
		t.Error(err)
	}
	if got := r.Counters().JWKS; got != 2 {
		t.Errorf("keys were fetched %d times, want 2", got)
	}
}

func TestTheGatewaysClockDecides(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	r.cfg.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	_, err := r.client(t).AuthCode(t.Context(), nonce)
	if err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("got %v", err)
	}
}

func TestV004PKCE(t *testing.T) {
	t.Parallel()
	t.Run("always S256, and a stolen code is worth nothing", func(t *testing.T) {
		t.Parallel()
		r := start(t, idp.Options{})
		open := r.cfg.OpenBrowser
		_ = open
		r.cfg.OpenBrowser = func(ctx context.Context, address string) error {
			u, err := url.Parse(address)
			if err != nil {
				return err
			}
			q := u.Query()
			if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("nonce") != nonce || len(q.Get("state")) < 22 {
				t.Errorf("authorisation request %s", address)
			}
			callback, err := r.Browser().Authorize(ctx, address, "alice")
			if err != nil {
				return err
			}
			// A thief on the way back has the code, and a verifier of his own.
			stolen, err := url.Parse(callback)
			if err != nil {
				return err
			}
			thief := oauth2.Config{
				ClientID: r.ClientID(), RedirectURL: q.Get("redirect_uri"),
				Endpoint: oauth2.Endpoint{TokenURL: r.Issuer() + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams},
			}
			_, err = thief.Exchange(clientContext(ctx, r), stolen.Query().Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier()))
			var refused *oauth2.RetrieveError
			if !errors.As(err, &refused) || refused.ErrorCode != "invalid_grant" {
				t.Errorf("the thief got %v", err)
			}
			return r.Browser().Visit(ctx, callback)
		}
		// The provider takes a code out of circulation at the first attempt.
		if _, err := r.client(t).AuthCode(t.Context(), nonce); !errors.Is(err, login.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
	for name, methods := range map[string][]string{"plain only": {"plain"}, "something else": {"s256"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			r.SetFaults(idp.Faults{Metadata: map[string]any{"code_challenge_methods_supported": methods}})
			if _, err := r.client(t).AuthCode(t.Context(), nonce); !errors.Is(err, login.ErrUntrusted) {
				t.Errorf("got %v", err)
			}
			if got := r.Counters(); got.Authorizations+got.Tokens != 0 {
				t.Errorf("something was sent: %+v", got)
			}
		})
	}
	t.Run("a provider that does not say", func(t *testing.T) {
		t.Parallel()
		r := start(t, idp.Options{})
		r.SetFaults(idp.Faults{Metadata: map[string]any{"code_challenge_methods_supported": nil}})
		if _, err := r.client(t).AuthCode(t.Context(), nonce); err != nil {
			t.Error(err)
		}
	})
}

// clientContext makes x/oauth2 reach the provider.
func clientContext(ctx context.Context, r *rig) context.Context {
	return oidc.ClientContext(ctx, newHTTPClient(r))
}
