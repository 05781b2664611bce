package control

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/wire"
)

// slow sends the head of a request whose body does not come, and returns the
// status of the answer and when it came.
func slow(conn net.Conn, path string) (int, time.Duration) {
	began := time.Now()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n", path)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, time.Since(began)
	}
	response.Body.Close()
	return response.StatusCode, time.Since(began)
}

// Bodies that do not come hold a few places for a bounded time, and keep nobody
// else out.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	synctest.Test(t, func(t *testing.T) {
		pipes := edge.NewInbox()
		server := &http.Server{Handler: r.Gateway()}
		go server.Serve(pipes)
		defer server.Close()
		dial := func() net.Conn {
			client, served := net.Pipe()
			pipes.Give(t.Context(), served)
			t.Cleanup(func() { client.Close() })
			return client
		}
		var mu sync.Mutex
		after := map[int][]time.Duration{}
		var asking sync.WaitGroup
		const asked = bodiesPerSource + 4
		for range asked {
			asking.Go(func() {
				code, took := slow(dial(), wire.PathSession)
				mu.Lock()
				defer mu.Unlock()
				after[code] = append(after[code], took)
			})
		}
		asking.Wait()
		if limited, late := after[http.StatusTooManyRequests], after[http.StatusRequestTimeout]; len(limited) != asked-bodiesPerSource || len(late) != bodiesPerSource {
			t.Errorf("%v", after)
		}
		for code, times := range after {
			for _, took := range times {
				if most := map[int]time.Duration{http.StatusTooManyRequests: unreadTime, http.StatusRequestTimeout: bodyTime}[code]; took > most {
					t.Errorf("%d after %s, want %s", code, took, most)
				}
			}
		}
		if n := r.bodies.Open(); n != 0 {
			t.Errorf("%d places are still held", n)
		}
	})
}

// TestBudgetBeforeBody: over one HTTP/2 connection with many streams the budget
// is spent before anything of a body is read.
func TestBudgetBeforeBody(t *testing.T) {
	t.Parallel()
	const budget, streams = 5, 60
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { c.Limits.LoginsPerSourcePerMinute = budget }})
	server := httptest.NewUnstartedServer(r.Gateway())
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answers := make(chan int, streams)
	var asking sync.WaitGroup
	for range streams {
		asking.Go(func() {
			never, hold := io.Pipe()
			defer hold.Close()
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+wire.PathSession, never)
			if err != nil {
				t.Error(err)
				return
			}
			request.Header.Set("Content-Type", "application/json")
			response, err := server.Client().Do(request)
			if err != nil {
				return // one of those within the budget, at the end
			}
			defer response.Body.Close()
			if response.ProtoMajor != 2 {
				t.Error(response.Proto)
			}
			answers <- response.StatusCode
		})
	}
	for range streams - budget {
		select {
		case code := <-answers:
			if code != http.StatusTooManyRequests {
				t.Errorf("%d", code)
			}
		case <-time.After(patience):
			t.Fatal("an answer waits for a body")
		}
	}
	cancel()
	asking.Wait()
}

func TestBodySizes(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	for _, tt := range []struct {
		path   string
		most   int
		inside bool // the tunnel
	}{
		{wire.PathDeviceCheck, maxStatement, false},
		{wire.PathDeviceEnroll, maxLogin, false},
		{wire.PathSession, maxLogin, false},
		{wire.PathSessionRenew, maxLogin, false},
		{wire.PathToken, maxCluster, true},
		{wire.PathCertificate, maxLogin, true},
	} {
		post := func(size int) *wire.Refusal {
			body := []byte(`{"cluster":"` + strings.Repeat("x", size-len(`{"cluster":""}`)) + `"}`)
			if tt.inside {
				return exchange(t, client, http.MethodPost, "https://control"+tt.path, body, nil)
			}
			return exchange(t, r.http, http.MethodPost, r.url+tt.path, body, nil)
		}
		if refusal := post(tt.most); refusal == nil || refusal.Reason == wire.ReasonTooLarge {
			t.Errorf("%s: %d bytes: %v", tt.path, tt.most, refusal)
		}
		refusal := mustRefuse(t, tt.path, post(tt.most+1), wire.ReasonTooLarge)
		if refusal != nil && tt.most == maxLogin && !strings.Contains(refusal.Hint, "groups") {
			t.Errorf("%s: %q", tt.path, refusal.Hint)
		}
	}
}

// deadlined is a recorder that takes deadlines.
type deadlined struct{ *httptest.ResponseRecorder }

func (deadlined) SetReadDeadline(time.Time) error { return nil }

func (r *rig) from(addr netip.Addr, path, body string) int {
	request := httptest.NewRequest(http.MethodPost, path, bytes.NewReader([]byte(body)))
	request.RemoteAddr = netip.AddrPortFrom(addr, 4711).String()
	request.Header.Set("Content-Type", "application/json")
	w := deadlined{httptest.NewRecorder()}
	r.Gateway().ServeHTTP(w, request)
	return w.Code
}

// Junk costs counters and not disk, from however many sources it comes.
func TestJunkDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	const asked = 3000
	began := time.Now()
	for i := range asked {
		path := [...]string{wire.PathDeviceCheck, wire.PathSession, wire.PathSessionRenew}[i%3]
		body := [...]string{`{"statement":"x"}`, `{"txn":"x"}`, `{`}[i/3%3]
		addr := netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(i >> 8), byte(i)})
		if code := r.from(addr, path, body); code < 400 || code == http.StatusTooManyRequests {
			t.Fatalf("%s %s: %d", path, body, code)
		}
	}
	if most := floodRecords * (2 + int(time.Since(began)/time.Second)); len(r.audited()) > most || len(r.audited()) == 0 {
		t.Errorf("%d of %d were recorded, want %d at most", len(r.audited()), asked, most)
	}
	counted := 0
	scrape := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		var n int
		if i := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "zt_logins_total{") {
			fmt.Sscan(line[i+1:], &n)
			counted += n
		}
	}
	if counted != asked {
		t.Errorf("%d of %d were counted", counted, asked)
	}
}

// Nor do keys that somebody makes by the hundred where every device may ask; a
// device that somebody has used is recorded at each check.
func TestNewKeysDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	known := r.laptop().login("alice")
	before := len(r.audited())
	const asked = 200
	began := time.Now()
	for i := range asked {
		l := r.laptop()
		statement, err := evidence.SignStatement(l.key, l.statement(wire.PurposeLogin))
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(i >> 8), byte(i)})
		if code := r.from(addr, wire.PathDeviceCheck, fmt.Sprintf(`{"statement":%q}`, statement)); code != http.StatusOK {
			t.Fatalf("%d", code)
		}
	}
	if n, most := len(r.audited())-before, floodRecords*(2+int(time.Since(began)/time.Second)); n > most || n == 0 {
		t.Errorf("%d of %d were recorded, want %d at most", n, asked, most)
	}
	before = len(r.audited())
	for range 3 * floodRecords {
		known.check(wire.PurposeLogin)
	}
	if n := len(r.audited()) - before; n != 3*floodRecords {
		t.Errorf("%d checks of a known device were recorded, of %d", n, 3*floodRecords)
	}
}

// A person's own refusals are recorded, each of them, during a flood too.
func TestFloodHidesNoPerson(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	txn := r.laptop().check(wire.PurposeLogin)
	for range 3 * floodRecords {
		r.post(wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: "x"}, nil)
	}
	l := r.laptop().login("alice")
	refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil), CSR: csr(t, l.key)})
	mustRefuse(t, "another key", refusal, wire.ReasonBindingMismatch)
	txn = l.check(wire.PurposeLogin)
	l.nonce = "another"
	refusal = mustRefuse(t, "another nonce", l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}), wire.ReasonTokenInvalid)
	for _, record := range r.audited() {
		if refusal != nil && record.ID == refusal.Decision {
			return
		}
	}
	t.Error("no record of it")
}

// TestLargestIDToken: an ID token of the largest size goes the whole way, through
// login, record, access token and renewal; a larger one is refused with what to do
// about it.
func TestLargestIDToken(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	groups := []string{"employees"}
	for i := range 5000 {
		groups = append(groups, fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i))
	}
	l := r.laptop()
	// sized is a token of at most so many bytes, short of it by two at most.
	sized := func(size int, changes map[string]any) string {
		t.Helper()
		claims := map[string]any{"groups": groups, "pad": ""}
		for k, v := range changes {
			claims[k] = v
		}
		room := size - len(l.token("alice", claims))
		if room < 0 {
			t.Fatalf("5000 groups do not fit by %d bytes", -room)
		}
		for pad := room * 3 / 4; ; pad-- {
			claims["pad"] = strings.Repeat("x", pad)
			if token := l.token("alice", claims); len(token) <= size {
				if len(token) < size-2 {
					t.Fatalf("%d bytes, want %d", len(token), size)
				}
				return token
			}
		}
	}
	txn := l.check(wire.PurposeLogin)
	refusal := mustRefuse(t, "larger", l.session(wire.SessionRequest{TXN: txn, IDToken: sized(authn.LoginLimit+3, nil)}), wire.ReasonTooLarge)
	if refusal != nil && (!strings.Contains(refusal.Message, "groups") || refusal.Hint != hintGroups) {
		t.Errorf("%q, %q", refusal.Message, refusal.Hint)
	}
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: sized(authn.LoginLimit, nil)}); refusal != nil {
		t.Fatal(refusal)
	}
	if record, _ := r.store.Session(l.cert.Session); len(record.Groups) != len(groups) {
		t.Errorf("%d groups are on record, want %d", len(record.Groups), len(groups))
	}
	client := l.stream()
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Error(refusal)
	}
	renewal := wire.RenewRequest{CSR: csr(t, l.key), IDToken: sized(authn.LoginLimit, map[string]any{"nonce": nil, "iat": r.clock.Now().Unix()})}
	if refusal := l.ask(client, http.MethodPost, wire.PathCertificate, renewal, nil); refusal != nil {
		t.Error(refusal)
	}
}

// Nor does a device that opens streams and proves nothing on them.
func TestGarbageOnStreamsDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	const streams = 500
	began := time.Now()
	for range streams {
		device, gateway := net.Pipe()
		go func() {
			_, _ = device.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			device.Close()
		}()
		r.ServeStream(t.Context(), gateway, edge.Notes{Regime: edge.RegimeTunnel})
	}
	if most := floodRecords * (2 + int(time.Since(began)/time.Second)); len(r.audited()) > most || len(r.audited()) == 0 {
		t.Errorf("%d of %d were recorded, want %d at most", len(r.audited()), streams, most)
	}
}
