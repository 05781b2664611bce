package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Limits that are not for people to set.
const (
	// helloTimeout is for a ClientHello, handshakeTimeout for the TLS handshake
	// after it.
	helloTimeout     = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	// strangersTotal and what follows bound the connections that have shown no
	// client certificate, gw.DOMAIN's included. A source is an IPv4 address or an
	// IPv6 /64 and may be a whole office; a site is an IPv6 /48.
	strangersTotal     = 4096
	strangersPerSource = 512
	strangersPerSite   = 1024
	// gatewaysTotal and gatewaysPerSource are how many of those may be on
	// gw.DOMAIN, where they may stay for minutes: the rest is kept for the
	// handshakes of tunnels, so that nobody who floods gw. shuts those out who
	// have a certificate.
	gatewaysTotal     = strangersTotal - 1024
	gatewaysPerSource = strangersPerSource - 128
	gatewaysPerSite   = strangersPerSite - 256
	// directTotal and what follows bound connections to *.direct.DOMAIN for as
	// long as they live: the edge never learns who they are.
	directTotal     = 4096
	directPerSource = 512
	directPerSite   = 1024
	// connectionsPerDevice bounds tunnel connections, each of up to 100 streams and
	// with a window of 8 MiB (package h2conn): a laptop has three for all its
	// streams, and after a sleep or a change of the network as many that are dead.
	connectionsPerDevice = 16
	// controlPerDevice bounds streams to control, which do not count as tunnels:
	// a device with all its tunnels in use must still be able to renew.
	controlPerDevice = 16
	// defaultTunnels is TunnelsPerDevice when it is not set.
	defaultTunnels = 256
	// sweepEvery is how often the ends of certificates are looked at.
	sweepEvery = time.Second
)

// Options say what the edge fronts. All funcs may be called concurrently and
// must not block.
type Options struct {
	// Domain is the suffix of all names; Aliases are further names of gw.DOMAIN.
	Domain      string
	Aliases     []string
	TrustDomain string

	// GatewayCertificate serves gw.DOMAIN, TunnelCertificate tunnel.DOMAIN.
	GatewayCertificate trust.GetCertificate
	TunnelCertificate  trust.GetCertificate
	// Roots is the trust pool of the moment.
	Roots func() *x509.CertPool

	// Gateway answers on gw.DOMAIN, to anybody.
	Gateway http.Handler
	// Control is the backend of the name "control".
	Control Backend
	// Cluster is the kube part of a cluster, nil where there is none.
	Cluster func(wire.ClusterName) Backend
	// Direct is the kube part of a cluster whose direct name is on, else nil.
	Direct func(wire.ClusterName) Backend

	// Registry is told of every connection and stream and asked before any.
	Registry *revoke.Registry
	// Facts are what the registry judges a certificate by. Nil: what stands in
	// the certificate.
	Facts func(trust.Identity) revoke.Facts
	// Admit decides whether somebody may open a stream to a cluster, which need
	// not exist. Nil: to each that exists.
	Admit func(trust.Identity, wire.ClusterName) *wire.Refusal
	// TunnelsPerDevice at once; nil or zero: 256.
	TunnelsPerDevice func() int

	Audit   *audit.Log       // may be nil
	Metrics *metrics.Metrics // may be nil
	Probes  *metrics.Probes  // may be nil
	Logger  *slog.Logger     // may be nil
	Now     func() time.Time // may be nil
}

// Edge is the public listener. Make it with New.
type Edge struct {
	o     Options
	names names
	log   *slog.Logger

	tunnelTLS  *tls.Config
	gatewayTLS *tls.Config
	gateway    *httpSide
	misfits    *httpSide
	tunnel     *httpSide

	strangers   *limit.Slots[netip.Prefix]
	gateways    *limit.Slots[netip.Prefix] // of the strangers, those on gw.DOMAIN
	directs     *limit.Slots[netip.Prefix]
	connections *limit.Slots[wire.Thumbprint]
	tunnels     *limit.Slots[wire.Thumbprint]
	controls    *limit.Slots[wire.Thumbprint]

	draining atomic.Bool
	stop     context.CancelFunc

	mu       sync.Mutex
	listener net.Listener
	live     map[net.Conn]*tunnel
	conns    sync.WaitGroup
}

// New prepares an Edge; it opens and starts nothing.
func New(o Options) (*Edge, error) {
	if o.Domain == "" || o.TrustDomain == "" || o.Roots == nil || o.Gateway == nil || o.Control == nil || o.Registry == nil {
		return nil, errors.New("edge: domain, trust domain, roots, gateway, control and registry must be set")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Cluster == nil {
		o.Cluster = func(wire.ClusterName) Backend { return nil }
	}
	if o.Direct == nil {
		o.Direct = func(wire.ClusterName) Backend { return nil }
	}
	if o.Facts == nil {
		o.Facts = CertificateFacts
	}
	if o.TunnelsPerDevice == nil {
		o.TunnelsPerDevice = func() int { return defaultTunnels }
	}
	e := &Edge{o: o, names: newNames(o.Domain, o.Aliases), log: o.Logger, live: make(map[net.Conn]*tunnel)}
	e.gatewayTLS = trust.GatewayServer(o.GatewayCertificate)
	e.tunnelTLS = trust.TunnelServer(o.TunnelCertificate, o.Roots, e.verify, o.TrustDomain)
	e.gateway = newHTTPSide(strangersServer(sameHost(o.Gateway)), o.Logger)
	e.misfits = newHTTPSide(strangersServer(http.HandlerFunc(misdirected)), o.Logger)
	tunnels := &http.Server{Handler: http.HandlerFunc(serveTunnelHTTP), ConnContext: e.tunnelContext, MaxHeaderBytes: 64 << 10}
	if err := h2conn.ConfigureServer(tunnels); err != nil {
		return nil, fmt.Errorf("edge: %v", err)
	}
	e.tunnel = newHTTPSide(tunnels, o.Logger)
	e.strangers = bySource(strangersTotal, strangersPerSource, strangersPerSite)
	e.gateways = bySource(gatewaysTotal, gatewaysPerSource, gatewaysPerSite)
	e.directs = bySource(directTotal, directPerSource, directPerSite)
	e.connections = byDevice(func() int { return connectionsPerDevice })
	e.controls = byDevice(func() int { return controlPerDevice })
	e.tunnels = byDevice(func() int {
		if n := o.TunnelsPerDevice(); n > 0 {
			return n
		}
		return defaultTunnels
	})
	return e, nil
}

func bySource(total, perSource, perSite int) *limit.Slots[netip.Prefix] {
	return limit.NewSlots(func() int { return total }, func(p netip.Prefix) int {
		if limit.IsSite(p) {
			return perSite
		}
		return perSource
	})
}

func byDevice(most func() int) *limit.Slots[wire.Thumbprint] {
	return limit.NewSlots(func() int { return 0 }, func(wire.Thumbprint) int { return most() })
}

// CertificateFacts are what a trust certificate says about itself.
func CertificateFacts(id trust.Identity) revoke.Facts {
	return revoke.Facts{
		User: id.User, Device: id.Device, Key: id.Key, Session: id.Session, Serial: id.Serial,
	}
}

// verify is asked in the handshake: a revoked certificate gets an alert and not
// a byte of HTTP.
func (e *Edge) verify(id trust.Identity) error {
	if refusal := e.o.Registry.Check(e.o.Facts(id)); refusal != nil {
		return refusal
	}
	return nil
}

// Serve accepts on listener, which it closes, until ctx ends or Drain has
// finished. No stream and no connection is left when it returns; a request on
// gw.DOMAIN may still run to its end, without a connection.
func (e *Edge) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() { listener.Close() })
	defer unhook()
	var servers sync.WaitGroup
	for _, side := range e.sides() {
		servers.Go(side.serve)
	}
	servers.Go(func() { e.sweep(ctx) })

	var err error
	e.mu.Lock()
	e.listener, e.stop = listener, cancel
	e.conns.Go(func() {
		// A loop that died takes the rest along; one that a drain has ended
		// leaves them to it.
		if err = e.accept(ctx, listener); err != nil {
			cancel()
		}
	})
	e.mu.Unlock()
	<-ctx.Done()
	e.closeAll()
	e.conns.Wait()
	servers.Wait()
	return err
}

func (e *Edge) accept(ctx context.Context, listener net.Listener) error {
	defer listener.Close()
	pause := 5 * time.Millisecond
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			e.conns.Go(func() { e.serve(ctx, conn) })
		case ctx.Err() != nil || e.draining.Load() || errors.Is(err, net.ErrClosed):
			if ctx.Err() == nil && !e.draining.Load() {
				return fmt.Errorf("edge: accept: %w", err)
			}
			return nil
		default:
			// Out of descriptors, most likely: those who are in shall stay, and
			// the loop must not spin until some leave.
			e.log.Warn("cannot accept connections", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, time.Second)
		}
	}
}

// serve is one connection from its first byte.
func (e *Edge) serve(ctx context.Context, raw net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			raw.Close()
			e.o.Metrics.Panic("edge")
			e.log.Error("panic on a connection", "panic", p)
		}
	}()
	client := addrPort(raw.RemoteAddr())
	leave, ok := e.strangers.Enter(limit.Sources(client.Addr())...)
	if !ok {
		e.o.Metrics.Handshake("any", "crowded")
		raw.Close()
		return
	}
	conn := newPeekedConn(raw, leave)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	raw.SetReadDeadline(time.Now().Add(helloTimeout))
	hello, err := evidence.ReadHello(counter{raw, &conn.seen})
	if err != nil {
		e.notHello(conn, err)
		return
	}
	raw.SetReadDeadline(time.Time{})
	conn.unread = hello.Raw

	which, cluster := e.names.choose(hello.ServerName)
	if which == regimeDirect {
		if backend := e.o.Direct(cluster); backend != nil {
			e.serveDirect(ctx, conn, client, backend, leave)
			return
		}
		which = regimeUnknown
	}
	switch which {
	case regimeTunnel:
		e.serveTunnel(ctx, conn, client, leave)
	case regimeGateway:
		e.serveHTTP(ctx, conn, client, e.gateway)
	default:
		e.o.Metrics.Handshake("any", "unknown_name")
		e.serveHTTP(ctx, conn, client, e.misfits)
	}
}

// serveDirect hands a connection over. It has shown nothing, and what it shows
// the kube part stays there, so it counts until its end.
func (e *Edge) serveDirect(ctx context.Context, conn *peekedConn, client netip.AddrPort, backend Backend, known func()) {
	leave, ok := e.directs.Enter(limit.Sources(client.Addr())...)
	if !ok {
		e.o.Metrics.Handshake(RegimeDirect, "crowded")
		conn.Close()
		return
	}
	defer leave()
	known() // it has its place, and not among the strangers
	e.o.Metrics.Connection("edge", RegimeDirect, 1)
	defer e.o.Metrics.Connection("edge", RegimeDirect, -1)
	backend.ServeStream(ctx, conn, Notes{Client: client, Regime: RegimeDirect})
}

// notHello ends a connection that brought no ClientHello. The usual one is a
// health check that connects and leaves: it is counted, and logged once a
// minute in all (F88).
func (e *Edge) notHello(conn *peekedConn, err error) {
	conn.Close()
	if conn.seen == 0 {
		if e.o.Probes != nil {
			e.o.Probes.Seen()
		}
		return
	}
	e.o.Metrics.Handshake("any", "hello")
	e.log.Debug("no client hello", "error", err)
}

// handshake does TLS within its time.
func (e *Edge) handshake(ctx context.Context, conn *peekedConn, config *tls.Config, regime string) (*tls.Conn, bool) {
	secure := tls.Server(conn, config)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		e.o.Metrics.Handshake(regime, handshakeCause(err))
		e.log.Debug("tls handshake failed", "regime", regime, "error", err)
		return nil, false
	}
	return secure, true
}

// handshakeCause reduces an error to one of a few words.
func handshakeCause(err error) string {
	var refusal *wire.Refusal
	var clock *trust.ClockError
	switch {
	case errors.As(err, &refusal):
		return "revoked"
	case errors.As(err, &clock):
		return "clock"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	default:
		return "refused"
	}
}

// sweep ends tunnels whose certificate has ended. It goes by the clock on the
// wall, which may be set, and not by timers, which would not notice.
func (e *Edge) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := e.o.Now()
		for _, t := range e.all() {
			if now.After(t.current().NotAfter) {
				t.cut(wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the trust certificate of this connection has expired"))
			}
		}
	}
}

func (e *Edge) all() []*tunnel {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*tunnel, 0, len(e.live))
	for _, t := range e.live {
		all = append(all, t)
	}
	return all
}

// Drain stops accepting, refuses new streams, tells HTTP peers to go elsewhere
// and waits until everybody has gone or ctx ends; then it ends the rest, and
// Serve returns. It must be called once at most.
func (e *Edge) Drain(ctx context.Context) {
	e.draining.Store(true)
	e.mu.Lock()
	listener, stop := e.listener, e.stop
	e.mu.Unlock()
	if listener == nil {
		return
	}
	listener.Close()
	// GOAWAY to all; running streams and requests go on.
	var sides sync.WaitGroup
	for _, side := range e.sides() {
		sides.Go(func() { _ = side.server.Shutdown(ctx) })
	}
	sides.Wait()
	gone := make(chan struct{})
	go func() {
		e.conns.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	stop()
	<-gone
}

func (e *Edge) sides() []*httpSide { return []*httpSide{e.gateway, e.misfits, e.tunnel} }

func (e *Edge) closeAll() {
	for _, side := range e.sides() {
		side.server.Close()
	}
}

func addrPort(addr net.Addr) netip.AddrPort {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
