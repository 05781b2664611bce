package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "s3cret-s3cret-s3cret-s3cret"

// countingRoute is a profile whose gateway would notice every attempt.
type countingRoute struct {
	opened atomic.Int64
	epoch  atomic.Uint64
	target Target
	err    error
}

func (r *countingRoute) Target(host string) (Target, error) {
	if host != "prod.zt.test" {
		return Target{}, fault.New(fault.ExitRefused, "kubectl zt clusters", "%s is not a cluster of zt.test", host)
	}
	t := r.target
	t.Host, t.Epoch = host, r.epoch.Load()
	return t, nil
}

func (r *countingRoute) Open(context.Context, *Target) (*h2conn.Stream, error) {
	r.opened.Add(1)
	return nil, r.err
}

func (r *countingRoute) Proof(string, []byte) (string, error) { return "proof", nil }

// serveProxy runs a proxy on a port of its own.
func serveProxy(t *testing.T, route Route, open string, owner func(peer, own netip.AddrPort) (int, error)) string {
	t.Helper()
	p := &Proxy{
		Log: slog.New(slog.DiscardHandler), Owner: owner,
		Routes: func(profile string) (Route, string) {
			if profile != "zt.test" {
				return nil, ""
			}
			return route, secret
		},
	}
	l, err := Listen(t.Context(), "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Serve(ctx, l, open)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}

// ask sends a head and returns the status line's code and text.
func ask(t *testing.T, addr, head string) (code int, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return resp.StatusCode, resp.Status
}

func basic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

func connect(target string, headers ...string) string {
	return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + strings.Join(headers, "") + "\r\n"
}

func TestV066NoSecretNoTunnel(t *testing.T) {
	t.Parallel()
	route := &countingRoute{err: errors.New("unused")}
	addr := serveProxy(t, route, "", nil)
	for name, head := range map[string]string{
		"none":               connect("prod.zt.test:443"),
		"empty":              connect("prod.zt.test:443", basic("zt.test", "")),
		"wrong":              connect("prod.zt.test:443", basic("zt.test", "guess")),
		"prefix":             connect("prod.zt.test:443", basic("zt.test", secret[:len(secret)-1])),
		"longer":             connect("prod.zt.test:443", basic("zt.test", secret+"x")),
		"another profile":    connect("prod.zt.test:443", basic("other.test", secret)),
		"empty, unknown":     connect("prod.zt.test:443", basic("", "")),
		"twice":              connect("prod.zt.test:443", basic("zt.test", secret), basic("zt.test", secret)),
		"bearer":             connect("prod.zt.test:443", "Proxy-Authorization: Bearer "+secret+"\r\n"),
		"not base64":         connect("prod.zt.test:443", "Proxy-Authorization: Basic %%%\r\n"),
		"as Authorization":   connect("prod.zt.test:443", strings.Replace(basic("zt.test", secret), "Proxy-", "", 1)),
		"unknown target too": connect("169.254.169.254:80"),
	} {
		if code, text := ask(t, addr, head); code != http.StatusProxyAuthRequired || !strings.Contains(text, "zt: ") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if n := route.opened.Load(); n != 0 {
		t.Errorf("the gateway saw %d connections", n)
	}
}

// TestCrowd: whoever opens connections and shows nothing keeps nobody out, and
// holds no more than a bounded number of them.
func TestCrowd(t *testing.T) {
	t.Parallel()
	route := &countingRoute{err: errors.New("reached")}
	addr := serveProxy(t, route, "", nil)
	var crowd []net.Conn
	defer func() {
		for _, conn := range crowd {
			conn.Close()
		}
	}()
	for range maxConns + maxWaiting {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, conn)
		_, _ = io.WriteString(conn, "CONNECT ")
	}
	if code, text := ask(t, addr, connect("prod.zt.test:443", basic("zt.test", secret))); code != http.StatusServiceUnavailable || route.opened.Load() != 1 {
		t.Errorf("%s", text)
	}
	for i, conn := range crowd[:maxConns] {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("number %d of %d is still waited for", i, len(crowd))
		}
	}
}

func TestV067BrowsersAndOtherMethods(t *testing.T) {
	t.Parallel()
	route := &countingRoute{err: errors.New("unused")}
	addr := serveProxy(t, route, "", nil)
	auth := basic("zt.test", secret)
	for _, tc := range []struct {
		name, head string
		want       int
	}{
		{"fetch", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Mode: cors\r\n\r\n", 403},
		{"form", "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.test\r\nContent-Length: 0\r\n\r\n", 403},
		{"null origin", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null\r\n\r\n", 403},
		{"link", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nReferer: https://evil.test/\r\n\r\n", 403},
		{"odd case", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nsEc-FeTcH-sItE: none\r\n\r\n", 403},
		{"CONNECT with Origin", connect("prod.zt.test:443", auth, "Origin: https://evil.test\r\n"), 403},
		{"CONNECT with Sec-Fetch", connect("prod.zt.test:443", auth, "Sec-Fetch-User: ?1\r\n"), 403},
		{"CONNECT with Referer", connect("prod.zt.test:443", auth, "Referer: x\r\n"), 403},
		{"rebound name", "CONNECT prod.zt.test:443 HTTP/1.1\r\nHost: evil.test\r\n" + auth + "\r\n", 403},
		{"two Hosts", connect("prod.zt.test:443", auth, "Host: prod.zt.test:443\r\n"), 403},
		{"absolute form", "GET http://prod.zt.test/ HTTP/1.1\r\nHost: prod.zt.test\r\n" + auth + "\r\n", 405},
		{"plain GET", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405},
		{"OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405},
		{"POST", "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + auth + "\r\n", 405},
		{"lower-case connect", "connect prod.zt.test:443 HTTP/1.1\r\nHost: prod.zt.test:443\r\n" + auth + "\r\n", 405},
		{"body", connect("prod.zt.test:443", auth, "Content-Length: 4\r\n"), 400},
		{"chunks", connect("prod.zt.test:443", auth, "Transfer-Encoding: chunked\r\n"), 400},
		{"no HTTP", "HELO\r\n\r\n", 400},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		{"huge head", "CONNECT prod.zt.test:443 HTTP/1.1\r\nX: " + strings.Repeat("a", 20<<10) + "\r\n\r\n", 400},
	} {
		if code, text := ask(t, addr, tc.head); code != tc.want {
			t.Errorf("%s: %s, want %d", tc.name, text, tc.want)
		}
	}
	if n := route.opened.Load(); n != 0 {
		t.Errorf("the gateway saw %d connections", n)
	}
}

func TestV068NamesOutsideTheProfile(t *testing.T) {
	t.Parallel()
	route := &countingRoute{err: errors.New("unused")}
	addr := serveProxy(t, route, "", nil)
	for _, target := range []string{
		"dev.zt.test:443", "evil.test:443", "prod.zt.test:22", "prod.zt.test:+443", "prod.zt.test:0443", "prod.zt.test:https", "prod.zt.test", "prod.zt.test.:443",
		"127.0.0.1:443", "[::1]:443", "localhost:443", "169.254.169.254:443", "gw.zt.test:443", "control:443", ":443", "prod.zt.test:443:443",
		"[prod.zt.test]:443", "me@prod.zt.test:443", "/prod.zt.test:443", "[]:443",
	} {
		if code, text := ask(t, addr, connect(target, basic("zt.test", secret))); code != http.StatusForbidden {
			t.Errorf("%s: %s", target, text)
		}
	}
	if n := route.opened.Load(); n != 0 {
		t.Errorf("the gateway saw %d connections", n)
	}
	if _, text := ask(t, addr, connect("PROD.zt.test:443", basic("zt.test", secret))); !strings.Contains(text, "503 zt: the gateway could not be asked: unused") {
		t.Errorf("a name in capitals is the same name: %s", text)
	}
}

func TestV069OtherAddressesNeedTheFlag(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "10.1.2.3:8081"} {
		_, err := Listen(t.Context(), addr, false)
		f := fault.Of(err)
		if f == nil || f.Exit != fault.ExitUsage || !strings.Contains(f.What, FlagRemote) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	l, err := Listen(t.Context(), "0.0.0.0:0", true)
	if err != nil {
		t.Fatalf("with the flag: %v", err)
	}
	l.Close()
	for _, addr := range []string{"localhost:8081", "8081", ":8081", "127.0.0.1:http"} {
		if _, err := Listen(t.Context(), addr, true); fault.Of(err).Exit != fault.ExitUsage {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// The half of V070 that is about the port; that no kubeconfig is written before
// is in the agent's TestV070….
func TestListenRefusesATakenPort(t *testing.T) {
	t.Parallel()
	squatter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	_, err = Listen(t.Context(), squatter.Addr().String(), false)
	f := fault.Of(err)
	if f == nil || !strings.Contains(f.What, "is taken") || len(f.Hints) == 0 {
		t.Errorf("%v", err)
	}
}

// Connections that come while the port checks itself are served afterwards.
func TestSelfCheckKeepsEarlyConnections(t *testing.T) {
	t.Parallel()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	early, err := net.Dial("tcp", raw.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	l, err := selfCheck(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != early.LocalAddr().String() {
		t.Error("the early connection was lost")
	}
}

// A port on which somebody else gets the connections is not used, and nothing was
// sent to him (V070).
func TestSelfCheckFindsAnotherProgram(t *testing.T) {
	t.Parallel()
	ours, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	squatter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	heard := make(chan int64, 1)
	go func() {
		conn, err := squatter.Accept()
		if err != nil {
			heard <- -1
			return
		}
		defer conn.Close()
		n, _ := io.Copy(io.Discard, conn)
		heard <- n
	}()
	began := time.Now()
	l, err := checkThrough(t.Context(), ours.(*net.TCPListener), squatter.Addr().(*net.TCPAddr).AddrPort())
	if err == nil {
		l.Close()
		t.Error("somebody else's port passed for one's own")
	}
	if took := time.Since(began); took > 2*selfCheckLimit {
		t.Errorf("it took %v", took)
	}
	if n := <-heard; n != 0 {
		t.Errorf("the squatter was told %d bytes", n)
	}
}

func TestOpenPortServesTheSameUserOnly(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		owner func(peer, own netip.AddrPort) (int, error)
		want  int
		says  string
	}{
		{"same user, by the kernel", nil, 503, "it was tried"},
		{"another user", func(_, _ netip.AddrPort) (int, error) { return os.Geteuid() + 1, nil }, 403, "another user asked"},
		{"unknown", func(_, _ netip.AddrPort) (int, error) { return 0, errors.New("not listed") }, 403, "not listed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			addr := serveProxy(t, &countingRoute{err: errors.New("it was tried")}, "zt.test", tc.owner)
			if code, text := ask(t, addr, connect("prod.zt.test:443")); code != tc.want || !strings.Contains(text, tc.says) {
				t.Errorf("%s, want %d and %q", text, tc.want, tc.says)
			}
		})
	}
}

// What the gateway says is shown in one line of ASCII.
func TestRefusalIsOneLine(t *testing.T) {
	t.Parallel()
	route := &countingRoute{err: fault.New(fault.ExitUnreachable, "kubectl zt status", "cluster für\r\nX-Injected: yes\x1b[2J is away")}
	addr := serveProxy(t, route, "", nil)
	code, text := ask(t, addr, connect("prod.zt.test:443", basic("zt.test", secret)))
	if code != 503 || strings.ContainsAny(text, "\r\n\x1b") || !strings.HasSuffix(text, "(kubectl zt status)") {
		t.Errorf("%q", text)
	}
}

// optimistic makes a CONNECT that is answered before it is made, and returns when
// the connection has ended.
func optimistic(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := clientHello(t, "prod.zt.test")
	if _, err := io.WriteString(conn, connect("prod.zt.test:443", basic("zt.test", secret))+string(hello)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || string(answer) != "HTTP/1.1 200 zt\r\n\r\n" {
		t.Fatalf("%q %v", answer, err)
	}
}

// What the edge refused is told to the next attempt, until something has changed
// that may turn it into consent.
func TestRefusedOptimisticStreamIsRemembered(t *testing.T) {
	t.Parallel()
	no := &wire.Refusal{Reason: wire.ReasonClusterDown, Message: "cluster prod is away", Hint: "kubectl zt clusters"}
	route := &countingRoute{target: Target{Optimistic: true, Audience: "uid"}, err: &h2conn.RefusedError{Status: 503, Refusal: no}}
	addr := serveProxy(t, route, "", nil)
	optimistic(t, addr)
	if code, text := ask(t, addr, connect("prod.zt.test:443", basic("zt.test", secret))); code != 503 || !strings.Contains(text, "cluster prod is away (kubectl zt clusters)") {
		t.Errorf("%s", text)
	}
	if n := route.opened.Load(); n != 1 {
		t.Errorf("tried %d times, want once", n)
	}
	route.epoch.Add(1) // a login, or a push of control
	optimistic(t, addr)
	if n := route.opened.Load(); n != 2 {
		t.Errorf("tried %d times, want twice", n)
	}
}

// A way that broke says nothing about the next attempt.
func TestBrokenOptimisticStreamIsNotRemembered(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"unreachable": fault.New(fault.ExitUnreachable, "check the network", "gw.zt.test cannot be reached"),
		"broken":      io.ErrUnexpectedEOF,
	} {
		route := &countingRoute{target: Target{Optimistic: true, Audience: "uid"}, err: err}
		addr := serveProxy(t, route, "", nil)
		for range 2 {
			optimistic(t, addr)
		}
		if n := route.opened.Load(); n != 2 {
			t.Errorf("%s: tried %d times, want twice", name, n)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(connect("prod.zt.test:443", basic("zt.test", secret))))
	f.Add([]byte("GET / HTTP/1.1\r\nOrigin: x\r\n\r\n"))
	f.Add([]byte(connect("[prod.zt.test]:443")))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHead(bufio.NewReader(io.LimitReader(bytes.NewReader(data), maxHead)))
		if err != nil || h.check() != nil {
			return
		}
		if h.method != http.MethodConnect {
			t.Fatalf("method %q passed", h.method)
		}
		for name := range h.header {
			if strings.HasPrefix(strings.ToLower(name), "sec-fetch-") || strings.EqualFold(name, "origin") {
				t.Fatalf("%q passed", name)
			}
		}
		if host, no := h.host(); no == nil && (host == "" || strings.ContainsAny(host, ":[]@/ \n") || host+":443" != strings.ToLower(h.target)) {
			t.Fatalf("host %q of target %q passed", host, h.target)
		}
	})
}
