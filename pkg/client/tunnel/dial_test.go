package tunnel

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// outerProxy is a corporate proxy with a password.
func outerProxy(t *testing.T, status string, seen *atomic.Int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			req, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil && req.Method == http.MethodConnect && req.Header.Get("Proxy-Authorization") == "Basic dTpw" {
				seen.Add(1)
				_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\n\r\nhello from "+req.Host)
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestCorporateProxyIsHonoured(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	addr := outerProxy(t, "200 OK", &seen)
	d := &Dialer{Env: Environment{HTTPSProxy: "http://u:p@" + addr, NoProxy: "direct.test"}}
	conn, err := d.DialContext(t.Context(), "tcp", "gw.zt.test:443")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if seen.Load() != 1 {
		t.Error("the proxy was not asked")
	}
	// NO_PROXY: the name is dialled directly, and does not exist.
	if _, err := d.DialContext(t.Context(), "tcp", "direct.test:1"); err == nil || seen.Load() != 1 {
		t.Errorf("%v, proxy asked %d times", err, seen.Load())
	}
}

func TestCorporateProxyThatRefuses(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	addr := outerProxy(t, "403 Not\x1bToday", &seen)
	d := &Dialer{Env: Environment{HTTPSProxy: "http://u:p@" + addr}}
	_, err := d.DialContext(t.Context(), "tcp", "gw.zt.test:443")
	f := fault.Of(err)
	if f == nil || f.Exit != fault.ExitUnreachable || !strings.Contains(f.What, "403") || strings.Contains(f.What, "u:p") || strings.Contains(f.What, "\x1b") {
		t.Errorf("%v", err)
	}
}

// `https_proxy=http://localhost:8081 kubectl …` is meant for kubectl; the agent
// that it wakes must not go out through itself.
func TestOwnPortIsNoWayOut(t *testing.T) {
	t.Parallel()
	for proxy, direct := range map[string]bool{
		"http://localhost:8081": true, "http://127.0.0.1:8081": true, "http://x:y@127.0.0.1:8081": true, "http://[::1]:8081": true,
		"http://127.0.0.1:3128": false, "http://proxy.corp:8081": false,
	} {
		d := &Dialer{Env: Environment{HTTPSProxy: proxy}, OwnPorts: func() []int { return []int{8081} }}
		u, err := d.proxy("gw.zt.test:443")
		if err != nil || (u == nil) != direct {
			t.Errorf("%s: %v %v", proxy, u, err)
		}
	}
}

// A proxy is not ours to choose, and many an https one knows nothing newer than
// TLS 1.2.
func TestOldHTTPSProxy(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect && r.ProtoMajor == 1 {
			asked.Add(1)
		}
		w.WriteHeader(http.StatusOK)
	}))
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS12}
	s.EnableHTTP2 = true // which has no CONNECT of this kind
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	d := &Dialer{Env: Environment{HTTPSProxy: "https://" + s.Listener.Addr().String()}, roots: pool}
	conn, err := d.DialContext(t.Context(), "tcp", "gw.zt.test:443")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if asked.Load() != 1 {
		t.Error("the proxy was not asked")
	}
	d.roots = x509.NewCertPool()
	if _, err := d.DialContext(t.Context(), "tcp", "gw.zt.test:443"); err == nil {
		t.Error("a proxy that nobody vouches for")
	}
}
