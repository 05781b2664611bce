package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestRevokedRenewal: a revoked certificate extends nothing. Who shows one is cut.
func TestRevokedRenewal(t *testing.T) {
	t.Parallel()
	const reason = "the certificate leaked"
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	r.upstream.handle(watchUpstream(oneEvent))
	response, err := alice.http("h2").Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
	must(t, err)
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != oneEvent {
		t.Fatalf("%q, %v", line, err)
	}
	end := alice.identity().NotAfter
	alice.renew(2 * time.Hour)
	r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Certificate: alice.identity().Serial, Reason: reason}}}, wire.Epoch{Generation: 1, Sequence: 99})
	alice.renewal()
	for _, l := range r.kube.links.all() {
		if id, _ := l.peer(); id.NotAfter.After(end) {
			t.Errorf("extended to %s", id.NotAfter)
		}
	}
	began := time.Now()
	rest, _ := io.ReadAll(lines)
	if took := time.Since(began); took > 2*time.Second || !strings.Contains(string(rest), reason) {
		t.Errorf("ended with %q after %s", rest, took)
	}
}

// machine is an authenticator that knows one token.
type machine struct{}

func (machine) Authenticate(_ context.Context, token string) (*authn.Identity, *wire.Refusal) {
	if token != "good" {
		return nil, wire.Refuse(wire.ReasonTokenInvalid, "", "the token is not good")
	}
	return &authn.Identity{Kind: authn.Further, User: wire.User{Issuer: "https://ci.test", Subject: "ci", Name: "ci"}, Name: "zt:ci"}, nil
}

// TestUnprovenDirect: a direct connection on which nobody proves anything is not
// kept, however much is said on it; one with an authenticated request is.
func TestUnprovenDirect(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{direct: true})
	r.kube.authn = machine{}
	ask := func(conn net.Conn, token string) int {
		return rawReply(t, conn, "GET /api/v1/pods HTTP/1.1\r\nHost: "+r.kube.directHost+"\r\nAuthorization: Bearer "+token+"\r\n\r\n").code
	}
	dial := func() net.Conn {
		conn, err := r.dialDirect(r.kube.directHost, "http/1.1")
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	began := time.Now()
	silent, guessing, proven := dial(), dial(), dial()
	if code := ask(proven, "good"); code != http.StatusOK && code != http.StatusForbidden {
		t.Fatalf("a good token: %d", code)
	}
	if code := ask(guessing, "bad"); code != http.StatusUnauthorized {
		t.Fatalf("a bad token: %d", code)
	}
	for name, conn := range map[string]net.Conn{"silent": silent, "guessing": guessing} {
		_ = conn.SetDeadline(began.Add(strangerTime + 5*time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
		}
	}
	if took := time.Since(began); took < strangerTime {
		t.Errorf("closed after %s already", took)
	}
	if code := ask(proven, "good"); code != http.StatusOK && code != http.StatusForbidden {
		t.Errorf("a good token, later: %d", code)
	}
}

// series is the value of one metric, empty when there is none.
func (r *rig) series(name string) string {
	scrape := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestGarbageIsBounded: streams that prove nothing are all counted, and few are
// recorded. Those of strangers leave the records of tunnels alone.
func TestGarbageIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{direct: true})
	garbage := func(regime string) {
		client, server := net.Pipe()
		go func() {
			_, _ = io.WriteString(client, "GET / HTTP/1.1\r\n\r\n")
			client.Close()
		}()
		r.kube.ServeStream(t.Context(), server, edge.Notes{Regime: regime})
	}
	const n = 200
	began := time.Now()
	for range n {
		garbage(edge.RegimeDirect)
	}
	most := garbageRecords + int(garbageRecords*time.Since(began).Seconds()) + 1
	garbage(edge.RegimeTunnel)
	recorded := map[string]int{}
	for _, record := range r.records() {
		recorded[record.Regime]++
	}
	if got := recorded[edge.RegimeDirect]; got == 0 || got > most {
		t.Errorf("%d of %d are recorded, want at most %d", got, n, most)
	}
	if got := recorded[edge.RegimeTunnel]; got != 1 {
		t.Errorf("%d of one in a tunnel are recorded", got)
	}
	if got, want := r.series(`zt_handshake_failures_total{cause="refused",regime="direct"}`), fmt.Sprint(n); got != want {
		t.Errorf("%s are counted, want %s", got, want)
	}
}
