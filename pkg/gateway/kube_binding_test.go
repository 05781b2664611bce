package gateway

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// TestV034: a token is taken from the places where one belongs and is nowhere
// written down.
func TestV034(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	token := alice.token()
	for name, change := range map[string]func(*http.Request){
		"query":         func(q *http.Request) { q.URL.RawQuery = "access_token=" + token },
		"query, token":  func(q *http.Request) { q.URL.RawQuery = "token=" + token },
		"cookie":        func(q *http.Request) { q.AddCookie(&http.Cookie{Name: "access_token", Value: token}) },
		"X-header":      func(q *http.Request) { q.Header.Set("X-Access-Token", token) },
		"proxy header":  func(q *http.Request) { q.Header.Set("Proxy-Authorization", "Bearer "+token) },
		"form in body":  func(q *http.Request) { q.Header.Set("Content-Type", "application/x-www-form-urlencoded") },
		"WebSocket h2":  func(q *http.Request) { q.Header.Set("Sec-WebSocket-Protocol", "x, "+token) },
		"user and pass": func(q *http.Request) { q.SetBasicAuth("token", token) },
	} {
		t.Run(name, func(t *testing.T) {
			request := alice.request(http.MethodPost, "/api/v1/pods", strings.NewReader("access_token="+token))
			request.Header.Del("Authorization")
			change(request)
			if got := r.do(alice.http("h2"), request); got.code != http.StatusUnauthorized {
				t.Errorf("answered %d %s", got.code, got.body)
			}
		})
	}
	r.upstream.none()
	// A good token in its place beside one in the query: the query is judged by
	// nobody and logged by nobody.
	request := alice.request(http.MethodGet, "/api/v1/pods?access_token="+token, nil)
	if got := r.do(alice.http("h2"), request); got.code != http.StatusOK {
		t.Errorf("answered %d %s", got.code, got.body)
	}
	log, err := os.ReadFile(r.auditFile)
	must(t, err)
	scrape := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if all := string(log) + scrape.Body.String(); strings.Contains(all, token) || strings.Contains(all, token[len(token)-40:]) {
		t.Error("the token stands in the log or in metrics")
	}
}

// TestV035: a token works only in the tunnel of its own device and session.
func TestV035(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{direct: true})
	laptopA := r.person("alice@example.com")
	laptopB := r.person("alice@example.com")
	token := laptopA.token()

	use := func(t *testing.T, client *http.Client, host string) reply {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/api/v1/pods", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		return r.do(client, request)
	}
	check := func(t *testing.T, got reply, reason wire.Reason) {
		t.Helper()
		if got.code != http.StatusForbidden {
			t.Errorf("answered %d %s", got.code, got.body)
		}
		record := r.outcome(got.decision)
		if record.Reason != reason {
			t.Errorf("reason %s, want %s", record.Reason, reason)
		}
		r.upstream.none()
	}
	t.Run("other device", func(t *testing.T) {
		got := use(t, laptopB.http("h2"), r.kube.host)
		check(t, got, wire.ReasonBindingMismatch)
		if record := r.outcome(got.decision); record.Device != laptopB.device.ID || record.User == nil || record.User.Name != "alice@example.com" {
			t.Errorf("the record names %v on %s", record.User, record.Device)
		}
	})
	t.Run("other session of the same device", func(t *testing.T) {
		again := *laptopA
		again.session = wire.SessionID(strings.Repeat("b", 26))
		again.renew(time.Hour)
		check(t, use(t, again.http("h2"), r.kube.host), wire.ReasonBindingMismatch)
	})
	t.Run("no tunnel", func(t *testing.T) {
		client := &http.Client{Transport: &http.Transport{DialTLSContext: r.directDialer("http/1.1")}}
		check(t, use(t, client, r.kube.directHost), wire.ReasonBindingMissing)
	})
	t.Run("preface stripped", func(t *testing.T) {
		// The name is the tunnel's, but nothing proves whose stream it is.
		conn, err := r.dialDirect(r.kube.host, "http/1.1")
		must(t, err)
		defer conn.Close()
		got := rawReply(t, conn, "GET /api/v1/pods HTTP/1.1\r\nHost: "+r.kube.host+"\r\nAuthorization: Bearer "+token+"\r\n\r\n")
		if got.code != http.StatusMisdirectedRequest {
			t.Errorf("answered %d %s", got.code, got.body)
		}
		r.upstream.none()
	})
	t.Run("proof of another stream", func(t *testing.T) {
		if conn, err := laptopA.replayed(); err == nil {
			conn.Close()
			t.Error("a proof that belongs to another ClientHello was accepted")
		}
		r.upstream.none()
	})
	if got := use(t, laptopA.http("h2"), r.kube.host); got.code != http.StatusOK {
		t.Errorf("in its own tunnel: %d %s", got.code, got.body)
	}
}

// TestV036: another person's token is refused, and the record names both.
func TestV036(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice, bob := r.person("alice@example.com"), r.person("bob@example.com")
	request := bob.request(http.MethodGet, "/api/v1/pods", nil)
	request.Header.Set("Authorization", "Bearer "+alice.token())
	got := r.do(bob.http("h2"), request)
	if got.code != http.StatusForbidden {
		t.Errorf("answered %d %s", got.code, got.body)
	}
	r.upstream.none()
	record := r.outcome(got.decision)
	if record.Reason != wire.ReasonIdentityMismatch || record.User == nil || !record.User.Same(bob.user) || record.Claimed == nil || !record.Claimed.Same(alice.user) {
		t.Errorf("the record: %+v", record)
	}
}

// TestRefusedPeer: a genuine stream that must not pass gets its handshake, and
// every request on it that refusal, whatever token it brings.
func TestRefusedPeer(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	r.ahead.Store(int64(2 * time.Hour)) // her certificate has ended
	conn := alice.dial("http/1.1")
	defer conn.Close()
	for range 2 {
		got := rawReply(t, conn, "GET /api/v1/pods HTTP/1.1\r\nHost: "+r.kube.host+"\r\nAuthorization: Bearer "+alice.token()+"\r\n\r\n")
		if got.code != http.StatusForbidden || !strings.Contains(got.body, "kubectl zt login") {
			t.Errorf("answered %d %s", got.code, got.body)
		}
		if record := r.outcome(got.decision); record.Reason != wire.ReasonSessionEnded {
			t.Errorf("reason %s", record.Reason)
		}
	}
	r.upstream.none()
}

// TestHeaderLimit is the other half of V033: what is over the limit of headers
// never reaches a handler.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	response, _, err := alice.raw("GET /api/v1/pods HTTP/1.1\r\nHost: " + r.kube.host + "\r\nAuthorization: Bearer " + strings.Repeat("A", 8<<20) + "\r\n\r\n")
	if err == nil && response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %d", response.StatusCode)
	}
	r.upstream.none()
	if records := r.records(); len(records) != 0 {
		t.Errorf("a handler ran: %+v", records)
	}
}
