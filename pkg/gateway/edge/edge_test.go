package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// get asks the edge over TLS with a server name and a Host of one's choice.
func (r *rig) get(serverName, host string, protocol string) (int, string) {
	r.t.Helper()
	config := trust.GatewayClient("gw."+domain, r.authorities.Pin(), nil)
	config.ServerName = serverName
	config.NextProtos = []string{protocol}
	if serverName == "" {
		// Without a name no SNI is sent; what is verified is the pin's business.
		config.ServerName = "127.0.0.1"
	}
	transport := &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: protocol == "h2",
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.addr)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://"+r.addr+"/", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Host = host
	response, err := transport.RoundTrip(request)
	if err != nil {
		r.t.Fatalf("get %s with SNI %q: %v", host, serverName, err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func TestServerNameAloneChoosesTheRegime(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	tests := []struct {
		serverName, host string
		want             int
	}{
		{"gw.zt.test", "gw.zt.test", 200},
		{"gw.zt.test", "gw.zt.test:8443", 200},
		{"GW.ZT.TEST", "gw.zt.test", 200},
		{"", "127.0.0.1", 200},
		{"", "whatever.example", 200},
		{"gw.zt.test", "tunnel.zt.test", 421},
		{"gw.zt.test", "prod.zt.test", 421},
		{"prod.zt.test", "gw.zt.test", 421},
		{"prod.zt.test", "prod.zt.test", 421},
		{"www.example.com", "www.example.com", 421},
		{"prod.direct.zt.test", "prod.direct.zt.test", 421}, // its direct name is off
		{"direct.zt.test", "direct.zt.test", 421},
	}
	for _, tt := range tests {
		for _, protocol := range []string{"h2", "http/1.1"} {
			got, body := r.get(tt.serverName, tt.host, protocol)
			if got != tt.want || (got == 200) != (body == "gateway") {
				t.Errorf("SNI %q, Host %q over %s: %d %q, want %d", tt.serverName, tt.host, protocol, got, body, tt.want)
			}
		}
	}
}

func TestDirectIsHandedOverUnread(t *testing.T) {
	t.Parallel()
	direct := &backend{}
	r := start(t, func(o *Options) {
		o.Direct = func(name wire.ClusterName) Backend {
			if name == "prod" {
				return direct
			}
			return nil
		}
	})
	cluster, err := r.authorities.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	direct.handle = func(ctx context.Context, conn net.Conn) {
		inner := tls.Server(conn, trust.StreamServer(trust.GetCertificate(cluster.Leaf), nil))
		if inner.HandshakeContext(ctx) == nil {
			io.Copy(inner, inner)
		}
	}
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{ServerName: "prod.direct.zt.test", MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if names := conn.ConnectionState().PeerCertificates[0].DNSNames; !strings.Contains(strings.Join(names, " "), "prod.direct.zt.test") {
		t.Errorf("the certificate is for %q: TLS ended at the edge", names)
	}
	direct.mu.Lock()
	defer direct.mu.Unlock()
	if n := direct.notes[0]; n.Regime != RegimeDirect || n.Session != "" || !n.Client.IsValid() {
		t.Errorf("notes %+v", n)
	}
}

// F88: TCP probes are one counter and at most one line.
func TestProbesAreOneLine(t *testing.T) {
	t.Parallel()
	var probes *metrics.Probes
	r := start(t, func(o *Options) {
		probes = metrics.NewProbes(o.Metrics)
		o.Probes = probes
	})
	n := count(1000)
	for range n {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	const series = "zt_empty_connections_total"
	eventually(t, "all are counted", func() bool { return r.metric(series) == fmtInt(n) })
	if got := r.log.String(); got != "" {
		t.Errorf("logged before the summary: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		probes.Run(ctx, slog.New(slog.NewTextHandler(r.log, nil)), 10*time.Millisecond)
	}()
	eventually(t, "the summary", func() bool { return strings.Contains(r.log.String(), "count="+fmtInt(n)) })
	cancel()
	<-done
	if lines := strings.Count(r.log.String(), "\n"); lines != 1 {
		t.Errorf("%d lines, want 1:\n%s", lines, r.log)
	}
}

func fmtInt(n int) string { return slog.IntValue(n).String() }

// pipeAddr gives one end of a pipe an address, as a socket has it.
type pipeConn struct {
	net.Conn
	frozen atomic.Bool
	thaw   chan struct{}
}

// Read and Write go nowhere once the peer is frozen, as on a dead link.
func (p *pipeConn) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if p.frozen.Load() {
		<-p.thaw
		return 0, net.ErrClosed
	}
	return n, err
}

func (p *pipeConn) Write(b []byte) (int, error) {
	if p.frozen.Load() {
		return len(b), nil
	}
	return p.Conn.Write(b)
}

// bubble runs an edge on pipes in fake time; dial opens a connection.
func bubble(t *testing.T, r *rig) (dial func() net.Conn) {
	t.Helper()
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, pipes) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		client, server := net.Pipe()
		pipes.conns <- server
		return client
	}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	done   atomic.Bool
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	if l.done.CompareAndSwap(false, true) {
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestV091(t *testing.T) {
	t.Run("idle for an hour", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := prepare(t, nil)
			dial := bubble(t, r)
			c, err := h2conn.NewClient(r.tlsOver(dial(), r.device("alice", 12*time.Hour)), h2conn.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s := accepted(t, connect(t, c, "prod.zt.test:443"))
			defer s.Close()
			time.Sleep(time.Hour)
			if _, err := s.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatalf("after an hour: %v", err)
			}
		})
	})
	t.Run("peer vanished", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := prepare(t, nil)
			dial := bubble(t, r)
			link := &pipeConn{Conn: dial(), thaw: make(chan struct{})}
			c, err := h2conn.NewClient(r.tlsOver(link, r.device("alice", 12*time.Hour)), h2conn.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := accepted(t, connect(t, c, "prod.zt.test:443"))
			link.frozen.Store(true)
			began := time.Now()
			for r.tunnels.Open() != 0 || len(r.all()) != 0 {
				if time.Since(began) > time.Minute {
					t.Fatalf("not noticed within a minute: %d tunnels", r.tunnels.Open())
				}
				time.Sleep(time.Second)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("noticed after %v", took)
			}
			close(link.thaw)
			s.Close()
			c.Close()
		})
	})
}

// Whoever says nothing, or says it slowly, is gone in ten seconds.
func TestSlowPeersAreClosed(t *testing.T) {
	tests := []struct {
		name string
		talk func(r *rig, conn net.Conn)
	}{
		{"no hello", func(*rig, net.Conn) {}},
		{"a hello in drops", func(_ *rig, conn net.Conn) {
			for _, b := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0} {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"no handshake after the hello", func(r *rig, conn net.Conn) {
			tls.Client(silent{conn}, &tls.Config{ServerName: "tunnel." + domain, MinVersion: tls.VersionTLS13}).Handshake()
		}},
		{"no request on gw.", func(r *rig, conn net.Conn) {
			config := trust.GatewayClient("gw."+domain, r.authorities.Pin(), nil)
			config.NextProtos = []string{"http/1.1"}
			io.Copy(io.Discard, tls.Client(conn, config))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, nil)
				conn := bubble(t, r)()
				began := time.Now()
				talking := make(chan struct{})
				go func() {
					defer close(talking)
					tt.talk(r, conn)
				}()
				// The edge must hang up: only then does the count fall.
				time.Sleep(time.Second)
				for r.strangers.Open() != 0 {
					if time.Since(began) > 11*time.Second {
						t.Fatal("still there after 11 s")
					}
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(began); took < 9*time.Second {
					t.Errorf("gone after %v already", took)
				}
				conn.Close()
				<-talking
			})
		})
	}
}

// silent swallows the answer, so that a handshake stops after the hello.
type silent struct{ net.Conn }

func (s silent) Read([]byte) (int, error) {
	buf := make([]byte, 1024)
	for {
		if _, err := s.Conn.Read(buf); err != nil {
			return 0, err
		}
	}
}

// A panic ends one stream; the connection and the others go on.
func TestPanicEndsOneStream(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	var panics atomic.Bool
	r.backend.handle = func(ctx context.Context, conn net.Conn) {
		if panics.Load() {
			panic("a bug")
		}
		echo(ctx, conn)
	}
	c := r.connection(r.device("alice", time.Hour))
	good := accepted(t, connect(t, c, "prod.zt.test:443"))
	alive(t, "a stream before the bug", good) // it has passed the switch
	panics.Store(true)
	bad := connect(t, c, "prod.zt.test:443")
	if _, err := bad.Read(make([]byte, 1)); err == nil {
		t.Error("the stream of the panic carries bytes")
	}
	if _, err := good.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(good, make([]byte, 1)); err != nil {
		t.Errorf("the other stream: %v", err)
	}
	if got := r.metric(`zt_panics_total{part="edge"}`); got != "1" {
		t.Errorf("panics: %q, want 1", got)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	c := r.connection(d)
	short := accepted(t, connect(t, c, "prod.zt.test:443"))
	long := accepted(t, connect(t, c, "prod.zt.test:443"))
	drained := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(drained)
		r.Drain(ctx)
	}()
	eventually(t, "no new streams", func() bool { return !c.Usable() })
	if _, err := net.DialTimeout("tcp", r.addr, time.Second); err == nil {
		t.Error("new connections are accepted")
	}
	// What runs goes on until its end.
	for _, s := range []*h2conn.Stream{short, long} {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatalf("a running stream: %v", err)
		}
	}
	short.CloseWrite()
	if _, err := io.ReadAll(short); err != nil {
		t.Errorf("the short stream: %v", err)
	}
	select {
	case <-drained:
		t.Fatal("drained with a stream that runs")
	case <-time.After(50 * time.Millisecond):
	}
	cancel() // the limit
	select {
	case <-drained:
	case <-time.After(patience):
		t.Fatal("the limit ends nothing")
	}
	if _, err := long.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the long stream ended with %v", err)
	}
}
