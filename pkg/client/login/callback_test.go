package login_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/test/idp"
)

// with is u with one parameter set, or removed for no values.
func with(u *url.URL, name string, values ...string) string {
	q := u.Query()
	q.Del(name)
	for _, v := range values {
		q.Add(name, v)
	}
	c := *u
	c.RawQuery = q.Encode()
	return c.String()
}

// TestV001 sends callbacks that are not the answer to this login. Each gets 400,
// none reaches the token endpoint, and the login still ends well.
func TestV001WrongStateKeepsWaiting(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	r.atCallback(func(ctx context.Context, callback *url.URL) {
		q := callback.Query()
		for name, target := range map[string]string{
			"wrong":            with(callback, "state", "guessed"),
			"missing":          with(callback, "state"),
			"empty":            with(callback, "state", ""),
			"repeated":         with(callback, "state", q.Get("state"), q.Get("state")),
			"repeated code":    with(callback, "code", "mine", q.Get("code")),
			"no code":          with(callback, "code"),
			"code and error":   with(callback, "error", "access_denied"),
			"error, no state":  "http://" + callback.Host + "/callback?error=access_denied",
			"semicolons":       "http://" + callback.Host + "/callback?state=" + q.Get("state") + ";code=x",
			"nothing":          "http://" + callback.Host + "/callback",
			"prefix of state":  with(callback, "state", q.Get("state")[:10]),
			"state and a half": with(callback, "state", q.Get("state")+"x"),
		} {
			if resp := get(ctx, t, http.MethodGet, target); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: status %d, want 400", name, resp.StatusCode)
			}
		}
		for _, path := range []string{"/", "/favicon.ico", "/callback/", "/Callback"} {
			if resp := get(ctx, t, http.MethodGet, "http://"+callback.Host+path); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: status %d, want 404", path, resp.StatusCode)
			}
		}
		if got := r.Counters().Tokens; got != 0 {
			t.Errorf("%d requests to the token endpoint before the right callback", got)
		}
		if resp := get(ctx, t, http.MethodGet, callback.String()); resp.StatusCode != http.StatusOK {
			t.Errorf("the right one: status %d", resp.StatusCode)
		}
	})
	if _, err := r.client(t).AuthCode(t.Context(), nonce); err != nil {
		t.Error(err)
	}
}

func TestV002CallbackOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		faults idp.Faults
		want   string // "" = login succeeds
	}{
		{"another", idp.Faults{CallbackIssuer: "https://evil.test"}, `the answer came from "https://evil.test"`},
		{"trailing slash", idp.Faults{CallbackIssuer: "/"}, "the answer came from"},
		{"missing although promised", idp.Faults{OmitCallbackIssuer: true}, "does not say where it came from"},
		{"another, with an error", idp.Faults{CallbackIssuer: "https://evil.test", CallbackError: "access_denied"}, "the answer came from"},
		{"never promised", idp.Faults{NoIssuerParameter: true}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			if tt.faults.CallbackIssuer == "/" {
				tt.faults.CallbackIssuer = r.Issuer() + "/"
			}
			r.SetFaults(tt.faults)
			tokens, err := r.client(t).AuthCode(t.Context(), nonce)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if tokens != nil || !errors.Is(err, login.ErrUntrusted) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", tokens, err, tt.want)
			}
			if got := r.Counters().Tokens; got != 0 {
				t.Errorf("token endpoint was hit %d times", got)
			}
		})
	}
}

// TestV005 plays a web page that knows the port and even the whole callback.
func TestV005ForeignPagesAndSecondUse(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	var callback *url.URL
	r.atCallback(func(ctx context.Context, u *url.URL) {
		callback = u
		for name, try := range map[string]struct {
			method string
			header []string
		}{
			"fetch":                   {http.MethodGet, []string{"Origin", "https://evil.test"}},
			"form post":               {http.MethodPost, []string{"Origin", "https://evil.test"}},
			"sandboxed frame":         {http.MethodGet, []string{"Origin", "null"}},
			"own origin":              {http.MethodGet, []string{"Origin", "http://" + u.Host}},
			"preflight":               {http.MethodOptions, []string{"Origin", "https://evil.test", "Access-Control-Request-Method", "GET", "Access-Control-Request-Private-Network", "true"}},
			"image":                   {http.MethodGet, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}},
			"frame":                   {http.MethodGet, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
			"websocket":               {http.MethodGet, []string{"Sec-Fetch-Mode", "websocket", "Origin", "https://evil.test"}},
			"fetch of an old browser": {http.MethodGet, []string{"Sec-Fetch-Mode", "no-cors"}},
			"script with no-cors":     {http.MethodGet, []string{"Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}},
		} {
			resp := get(ctx, t, try.method, u.String(), try.header...)
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s: status %d, want 403", name, resp.StatusCode)
			}
			for h := range resp.Header {
				if strings.HasPrefix(h, "Access-Control-") {
					t.Errorf("%s: answered with %s", name, h)
				}
			}
		}
		if resp := get(ctx, t, http.MethodPost, u.String()); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("post without origin: status %d", resp.StatusCode)
		}
		if got := r.Counters().Tokens; got != 0 {
			t.Errorf("token endpoint was hit %d times", got)
		}
		if err := r.Browser().Visit(ctx, u.String()); err != nil {
			t.Error(err)
		}
	})
	tokens, err := r.client(t).AuthCode(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	// The port is closed by now; TestGuardSecondUse looks at the moment before.
	if err := r.Browser().Visit(t.Context(), callback.String()); err == nil {
		t.Error("the callback was taken a second time")
	}
	if tokens.Claims.Subject != "00u-alice-7f3a" || r.Counters().CodeExchanges != 1 {
		t.Errorf("result changed: %+v, %+v", tokens, r.Counters())
	}
}

func TestV006DNSRebindingAndOtherInterfaces(t *testing.T) {
	t.Parallel()
	r := start(t, idp.Options{})
	r.atCallback(func(ctx context.Context, u *url.URL) {
		for _, host := range []string{"evil.test:" + u.Port(), "localhost:" + u.Port(), "127.0.0.1", "127.0.0.1:1", "[::1]:" + u.Port(), u.Host + "."} {
			if resp := get(ctx, t, http.MethodGet, u.String(), "Host", host); resp.StatusCode != http.StatusForbidden {
				t.Errorf("Host %s: status %d, want 403", host, resp.StatusCode)
			}
		}
		if u.Hostname() != "127.0.0.1" || u.Path != "/callback" {
			t.Errorf("redirect is %s", u)
		}
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("::1", u.Port())); err == nil {
			t.Error("listens on ::1 too, which the provider was not told")
			_ = c.Close()
		}
		for _, a := range listening(t, u.Port()) {
			if a != "0100007F" { // 127.0.0.1 as /proc writes it
				t.Errorf("port %s listens on %s", u.Port(), a)
			}
		}
		if err := r.Browser().Visit(ctx, u.String()); err != nil {
			t.Error(err)
		}
	})
	if _, err := r.client(t).AuthCode(t.Context(), nonce); err != nil {
		t.Error(err)
	}
}

// listening is what the kernel says about who listens on port; empty elsewhere
// than on Linux.
func listening(t *testing.T, port string) (addrs []string) {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			return nil
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			// sl local_address rem_address st …; state 0A is LISTEN
			fields := strings.Fields(s.Text())
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			if addr, p, ok := strings.Cut(fields[1], ":"); ok && p == fmt.Sprintf("%04X", n) {
				addrs, found = append(addrs, addr), true
			}
		}
		_ = f.Close()
	}
	if !found {
		t.Errorf("nobody listens on port %s", port)
	}
	return addrs
}

func TestV008HostileErrorText(t *testing.T) {
	t.Parallel()
	hostile := "\x1b[31mred\x1b]0;title\x07\u202eevil\u009b2J\r\n" + strings.Repeat("A", 100<<10)
	tests := []struct {
		name   string
		faults idp.Faults
	}{
		{"callback", idp.Faults{ErrorCallback: hostile}},
		{"callback error code", idp.Faults{CallbackError: hostile}},
		{"token endpoint", idp.Faults{TokenError: "invalid_request", TokenErrorText: hostile}},
		{"token endpoint code", idp.Faults{TokenError: hostile}},
		{"issuer of the callback", idp.Faults{CallbackIssuer: hostile}},
		{"issuer of the token", idp.Faults{TokenIssuer: hostile}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, idp.Options{})
			r.SetFaults(tt.faults)
			_, err := r.client(t).AuthCode(t.Context(), nonce)
			if err == nil {
				t.Fatal("signed in")
			}
			for what, text := range map[string]string{"error": err.Error(), "fault": fault.Of(err).What} {
				if len(text) > 1100 || len(text) < 900 {
					t.Errorf("%s has %d bytes", what, len(text))
				}
				if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r != '…' }); i >= 0 {
					t.Errorf("%s is not escaped: %q", what, text[i:i+10])
				}
				if !strings.Contains(text, "red") {
					t.Errorf("%s does not say what the provider said: %.100q", what, text)
				}
			}
			if fault.Of(err).Exit == 0 {
				t.Error("exit code 0")
			}
		})
	}
}
