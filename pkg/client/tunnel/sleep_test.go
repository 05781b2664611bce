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
	"github.com/kube-zt/zt/test/transcript"
)

// laptop is an Outer whose machine can sleep: the wall clock goes on and nothing
// else does.
type laptop struct {
	*Outer
	ahead atomic.Int64 // of the wall clock
	log   transcript.Buffer
}

func (l *laptop) sleep(d time.Duration) { l.ahead.Add(int64(d)) }

// newLaptop looks at its clocks every so often; Run is up to the caller.
func newLaptop(addr string, pool *x509.CertPool, every time.Duration) *laptop {
	l := new(laptop)
	l.Outer = NewOuter(OuterConfig{
		Address: addr, ServerName: "example.com", Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.NewTextHandler(&l.log, nil)),
		TLS: func() *tls.Config {
			return &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
		},
		Now: func() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) },
	})
	l.every = every
	return l
}

func (l *laptop) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "connected", l.Up)
}

// The lid was closed, and the connection died meanwhile: nothing is promised on
// it, and the first command that waits gets through over a new one.
func TestFirstConnectAfterSleep(t *testing.T) {
	t.Parallel()
	addr, pool, _ := echoEdge(t)
	r := newRelay(t, addr)
	l := newLaptop(r.addr, pool, time.Hour) // Run does not look; the command does
	l.start(t)
	r.freeze()
	l.sleep(time.Minute)
	if l.Up() {
		t.Error("a stream is promised on a connection that the machine slept over")
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var all sync.WaitGroup
	for range 5 { // all wait for one look
		all.Go(func() {
			l.Rouse(ctx)
			s, err := l.Open(ctx, "prod.zt.test:443")
			if err != nil {
				t.Errorf("after sleep: %v", err)
				return
			}
			s.Close()
		})
	}
	all.Wait()
	if n := r.count.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	if !l.Up() {
		t.Error("not up again")
	}
	if n := strings.Count(l.log.String(), "woke up"); n != 1 {
		t.Errorf("looked %d times", n)
	}
}

// Nobody asks for anything, and yet the connection is warm again soon.
func TestRunNoticesSleep(t *testing.T) {
	t.Parallel()
	addr, pool, _ := echoEdge(t)
	r := newRelay(t, addr)
	l := newLaptop(r.addr, pool, 20*time.Millisecond)
	l.start(t)
	r.freeze()
	l.sleep(time.Minute)
	eventually(t, "another connection", func() bool { return r.count.Load() == 2 && l.Up() })
	if text := l.log.String(); !strings.Contains(text, "woke up") {
		t.Error(text)
	}
}

// A connection that survived the sleep is kept.
func TestSleepCostsOnePing(t *testing.T) {
	t.Parallel()
	addr, pool, _ := echoEdge(t)
	r := newRelay(t, addr)
	l := newLaptop(r.addr, pool, time.Hour)
	l.start(t)
	l.sleep(time.Minute)
	gone, cancel := context.WithCancel(t.Context())
	cancel() // who asked has left: that says nothing about the connection
	l.Rouse(gone)
	if err := echo(t, l.Outer); err != nil {
		t.Error(err)
	}
	if n := r.count.Load(); n != 1 {
		t.Errorf("%d connections, want the one that was there", n)
	}
}

// brittleEdge tells of each CONNECT before it answers, and waits for leave.
func brittleEdge(t *testing.T) (addr string, pool *x509.CertPool, asked chan chan struct{}) {
	t.Helper()
	asked = make(chan chan struct{}, 8)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leave := make(chan struct{})
		asked <- leave
		select {
		case <-leave:
		case <-r.Context().Done():
			return
		}
		stream, err := h2conn.Accept(w, r)
		if err != nil {
			return
		}
		go stream.Close()
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
	return s.Listener.Addr().String(), pool, asked
}

// cut ends the connections that stand.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.conns {
		k.a.Close()
		k.b.Close()
	}
	r.conns = nil
}

// The network goes away under a CONNECT that waits for its answer.
func TestOpenOutlivesOneBrokenConnection(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		breaks int
		exit   fault.Exit
	}{{"once", 1, 0}, {"twice", 2, fault.ExitUnreachable}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			addr, pool, asked := brittleEdge(t)
			r := newRelay(t, addr)
			l := newLaptop(r.addr, pool, time.Hour)
			l.start(t)
			done := make(chan error, 1)
			go func() {
				s, err := l.Open(t.Context(), "prod.zt.test:443")
				if err == nil {
					s.Close()
				}
				done <- err
			}()
			var err error
			for i := 0; i <= tc.breaks && err == nil; i++ {
				select {
				case leave := <-asked:
					if i < tc.breaks {
						r.cut()
					} else {
						close(leave)
					}
				case err = <-done:
				}
			}
			if err == nil {
				err = <-done
			}
			if tc.exit == 0 {
				if err != nil {
					t.Errorf("%v", err)
				}
				return
			}
			f := Refused(err)
			if f.Exit != tc.exit || len(f.Hints) == 0 || strings.Contains(f.Line(), "http2") {
				t.Errorf("%+v", f)
			}
		})
	}
}
