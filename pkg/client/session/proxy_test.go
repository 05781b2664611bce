package session_test

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/test/idp"
)

// corporateProxy is the only way to a name that nothing else resolves. It wants a
// password, carries bytes, and can be told to let go of them.
type corporateProxy struct {
	*httptest.Server
	to map[string]string // by host:port

	mu    sync.Mutex
	asked map[string]int
	conns []net.Conn
	work  sync.WaitGroup
}

func newCorporateProxy(t *testing.T, to map[string]string) *corporateProxy {
	t.Helper()
	p := &corporateProxy{to: to, asked: map[string]int{}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() { p.Close(); p.cut(); p.work.Wait() })
	return p
}

func (p *corporateProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("me:s3cret")) {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.asked[r.Method+" "+r.Host]++
	p.mu.Unlock()
	far, err := net.Dial("tcp", p.to[r.Host])
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	near, rest, err := w.(http.Hijacker).Hijack()
	if err != nil {
		far.Close()
		return
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n")
	p.mu.Lock()
	p.conns = append(p.conns, near, far)
	p.mu.Unlock()
	p.work.Go(func() { _, _ = io.Copy(far, rest); far.Close() })
	p.work.Go(func() { _, _ = io.Copy(near, far); near.Close() })
}

// cut ends what is carried, as a proxy does with connections that live for long.
func (p *corporateProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *corporateProxy) requests() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := make(map[string]int, len(p.asked))
	for k, n := range p.asked {
		asked[k] = n
	}
	return asked
}

// Behind a corporate proxy everything works: first contact, login, the warm
// connection with control in it, a request to a cluster, and all that once more
// after the proxy has cut the connection.
func TestWholeTunnelThroughACorporateProxy(t *testing.T) {
	t.Parallel()
	const gateway = "gw." + gatewaytest.Domain + ":443"
	var p *corporateProxy
	l := newLaptop(t, idp.Options{}, func(l *laptop) {
		p = newCorporateProxy(t, map[string]string{gateway: l.gw.Addr})
		dialer := &tunnel.Dialer{Env: tunnel.Environment{HTTPSProxy: "http://me:s3cret@" + p.Listener.Addr().String()}}
		l.deps.Dial = dialer.DialContext
	})
	_, pin, _ := strings.Cut(l.gw.Pinned(), "#")
	l.live(l.meet("https://" + gateway + "#" + pin))
	l.login()
	if st := l.Status(); st.Edge != "connected" || st.Control != "connected" {
		t.Errorf("%+v", st)
	}
	if body, err := l.request(); err != nil || !strings.HasSuffix(body, " on prod") {
		t.Errorf("%q %v", body, err)
	}
	p.cut()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.Ready(ctx); err != nil {
		t.Errorf("after the cut: %v", err)
	}
	if body, err := l.request(); err != nil || !strings.HasSuffix(body, " on prod") {
		t.Errorf("after the cut: %q %v", body, err)
	}
	asked := p.requests()
	if n := asked["CONNECT "+gateway]; n < 3 || len(asked) != 1 { // gw., the tunnel, and the tunnel again
		t.Errorf("the proxy was asked %v", asked)
	}
	if n := l.count(func(s *gatewaytest.State) int { return s.Tunnels }); n != 2 {
		t.Errorf("%d connections to the edge, want 2", n)
	}
}
