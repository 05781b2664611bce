package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/h2conn"
)

// relay stands between laptop and edge, and can fall silent: what a sleeping
// laptop or a changed network looks like.
type relay struct {
	addr   string
	l      net.Listener
	target string

	mu    sync.Mutex
	conns []*link2
	all   sync.WaitGroup
	count atomic.Int64
}

type link2 struct {
	a, b   net.Conn
	frozen atomic.Bool
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), l: l, target: target}
	r.all.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			r.count.Add(1)
			b, err := net.Dial("tcp", target)
			if err != nil {
				a.Close()
				continue
			}
			k := &link2{a: a, b: b}
			r.mu.Lock()
			r.conns = append(r.conns, k)
			r.mu.Unlock()
			r.all.Go(func() { k.move(a, b) })
			r.all.Go(func() { k.move(b, a) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, k := range r.conns {
			k.a.Close()
			k.b.Close()
		}
		r.mu.Unlock()
		r.all.Wait()
	})
	return r
}

func (k *link2) move(from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if k.frozen.Load() {
			continue // swallowed
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// freeze silences the connections that stand; new ones work.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.conns {
		k.frozen.Store(true)
	}
}

// echoEdge accepts every CONNECT and sends back what it gets.
func echoEdge(t *testing.T) (addr string, pool *x509.CertPool, renewals *atomic.Int64) {
	t.Helper()
	renewals = new(atomic.Int64)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if renewals.Add(1) > 1 {
				w.WriteHeader(http.StatusForbidden)
			}
			return
		}
		stream, err := h2conn.Accept(w, r)
		if err != nil {
			return
		}
		go func() {
			defer stream.Close()
			_, _ = io.Copy(stream, stream)
		}()
		stream.Run()
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	if err := h2conn.ConfigureServer(s.Config); err != nil {
		t.Fatal(err)
	}
	s.TLS = s.Config.TLSConfig
	s.StartTLS()
	t.Cleanup(s.Close)
	pool = x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.Listener.Addr().String(), pool, renewals
}

func runOuter(t *testing.T, addr string, pool *x509.CertPool) *Outer {
	t.Helper()
	o := NewOuter(OuterConfig{
		Address: addr, ServerName: "example.com", Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.DiscardHandler),
		TLS: func() *tls.Config {
			return &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return o
}

func echo(t *testing.T, o *Outer) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := o.Connect(ctx, "prod.zt.test:443")
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(s, "hello"); err != nil {
		return err
	}
	buf := make([]byte, 5)
	_, err = io.ReadFull(s, buf)
	return err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// The network changes, or the lid is closed: the dead connection is found by one
// ping and replaced.
func TestDeadConnectionIsFoundAndReplaced(t *testing.T) {
	t.Parallel()
	addr, pool, _ := echoEdge(t)
	r := newRelay(t, addr)
	o := runOuter(t, r.addr, pool)
	eventually(t, "connected", o.Up)
	if err := echo(t, o); err != nil {
		t.Fatal(err)
	}
	r.freeze()
	began := time.Now()
	o.Probe(t.Context())
	if took := time.Since(began); took > 2*probeLimit {
		t.Errorf("probing took %s", took)
	}
	if err := echo(t, o); err != nil {
		t.Errorf("after the change: %v", err)
	}
	if n := r.count.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// A live connection survives being doubted.
func TestLiveConnectionIsKept(t *testing.T) {
	t.Parallel()
	addr, pool, _ := echoEdge(t)
	r := newRelay(t, addr)
	o := runOuter(t, r.addr, pool)
	eventually(t, "connected", o.Up)
	for range 3 {
		o.Probe(t.Context())
		if err := echo(t, o); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.count.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// An edge that does not take the renewed certificate gets a new handshake; what
// runs on the old connection goes on.
func TestRefusedRenewalRetiresTheConnection(t *testing.T) {
	t.Parallel()
	addr, pool, renewals := echoEdge(t)
	r := newRelay(t, addr)
	o := runOuter(t, r.addr, pool)
	eventually(t, "connected", o.Up)
	running, err := o.Connect(t.Context(), "prod.zt.test:443")
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	o.Renew(t.Context(), "chain")
	if n := r.count.Load(); n != 1 || renewals.Load() != 1 {
		t.Fatalf("%d connections, %d renewals", n, renewals.Load())
	}
	o.Renew(t.Context(), "chain") // refused
	eventually(t, "a second connection", func() bool { return r.count.Load() == 2 })
	if err := echo(t, o); err != nil {
		t.Error(err)
	}
	if err := running.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(running, "still"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(running, buf); err != nil || string(buf) != "still" {
		t.Errorf("the running stream: %q %v", buf, err)
	}
}

func TestUnreachableEdgeIsSaidSo(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	d := &Dialer{}
	o := NewOuter(OuterConfig{Address: l.Addr().String(), ServerName: "x", Dial: d.DialContext, Log: slog.New(slog.DiscardHandler), TLS: func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS13} }})
	defer o.close()
	_, err = o.Connect(t.Context(), "prod.zt.test:443")
	if f := fault.Of(err); f == nil || f.Exit != fault.ExitUnreachable || len(f.Hints) == 0 {
		t.Errorf("%v", err)
	}
}

// The hint is a command that works: a gateway with a pin is asked with its pin.
func TestUnknownAuthorityOfTheTunnel(t *testing.T) {
	t.Parallel()
	addr, _, _ := echoEdge(t)
	o := NewOuter(OuterConfig{
		Address: addr, ServerName: "example.com", Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.DiscardHandler),
		Trust: "kubectl zt trust 'https://gw.zt.test:443#sha256=00'",
		TLS: func() *tls.Config {
			return &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
		},
	})
	defer o.close()
	_, err := o.Connect(t.Context(), "prod.zt.test:443")
	f := fault.Of(err)
	if f == nil || f.Exit != fault.ExitUntrusted || len(f.Hints) != 1 || !strings.HasSuffix(f.Hints[0], o.cfg.Trust) {
		t.Errorf("%+v", f)
	}
}

// A connection that is dead does not keep the others from being renewed.
func TestRenewalReachesAllConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	addr, pool, renewals := echoEdge(t)
	r := newRelay(t, addr)
	l := newLaptop(r.addr, pool, time.Hour)
	for i := range 3 {
		k, err := l.attempt(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.links = append(l.links, k)
		if i < 2 {
			r.freeze()
		}
	}
	defer l.close()
	began := time.Now()
	l.Renew(t.Context(), "chain")
	if took := time.Since(began); took >= 2*postLimit {
		t.Errorf("took %s", took)
	}
	if n := renewals.Load(); n != 1 {
		t.Errorf("%d renewals, want that of the live connection", n)
	}
}

// A panic below the dial is told to who waits, and ends nothing else.
func TestPanicInDial(t *testing.T) {
	t.Parallel()
	o := NewOuter(OuterConfig{
		Address: "gw.zt.test:443", ServerName: "x", Log: slog.New(slog.DiscardHandler), TLS: func() *tls.Config { return nil },
		Dial: func(context.Context, string, string) (net.Conn, error) { panic("boom") },
	})
	defer o.close()
	for range 2 {
		if _, err := o.Connect(t.Context(), "prod.zt.test:443"); fault.Of(err) == nil || fault.Of(err).What != "internal error" {
			t.Errorf("%v", err)
		}
	}
}
