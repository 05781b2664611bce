package control

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// sweepEvery is how often ends of certificates are looked at.
	sweepEvery = time.Second
	// cutGrace lets the event of an end, or the answer to a logout, reach the
	// laptop before its stream goes.
	cutGrace = 500 * time.Millisecond
)

// peer is one stream whose other end has proved a trust certificate.
type peer struct {
	identity trust.Identity
	notes    edge.Notes
	// refused is why a genuine peer must not pass, from the start.
	refused *wire.Refusal
	// ended is closed when the stream was cut.
	ended chan struct{}
	conn  net.Conn

	mu       sync.Mutex
	notAfter time.Time // the latest of this session and key
	cause    *wire.Refusal
	grace    *time.Timer
}

// ServeStream implements edge.Backend, for the name "control".
func (c *Control) ServeStream(ctx context.Context, conn net.Conn, notes edge.Notes) {
	over := make(chan struct{})
	stream := &watchedConn{Conn: conn, over: over}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()

	secure, from, err := c.acceptor.Accept(ctx, stream)
	if err != nil {
		c.o.Metrics.Handshake("control", "proof")
		if !c.garbage.AllowN(c.now(), 1) {
			return
		}
		_ = c.o.Audit.Event(audit.Record{
			Event: audit.EventStream, Decision: audit.Refused, Reason: wire.ReasonProofInvalid, Error: audit.Clip(err.Error(), 512),
			Device: notes.Device, Session: notes.Session, Source: notes.Client.Addr().String(), Regime: notes.Regime,
		})
		return
	}
	if from.Proof.Renew {
		// A certificate that is revoked gives nothing a longer life.
		if from.Refusal == nil && c.o.Registry.Check(c.Facts(from.Proof.Identity)) == nil {
			c.extend(from.Proof.Identity)
		}
		return
	}
	c.servePeer(ctx, secure, from, notes, over)
}

// servePeer registers a stream, asks the deny set, and serves it to its end.
func (c *Control) servePeer(ctx context.Context, secure *tls.Conn, from *evidence.Peer, notes edge.Notes, over <-chan struct{}) {
	p := &peer{
		identity: from.Proof.Identity, notes: notes, refused: from.Refusal,
		ended: make(chan struct{}), conn: secure.NetConn(), notAfter: from.Proof.Identity.NotAfter,
	}
	facts := c.Facts(p.identity)
	release := c.o.Registry.Register(facts, p.cut)
	defer release()
	if refusal := c.o.Registry.Check(facts); refusal != nil && p.refused == nil {
		p.refused = refusal
	}
	c.mu.Lock()
	c.peers[secure] = p
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.peers, secure)
		c.mu.Unlock()
		p.stopGrace()
	}()
	c.o.Metrics.Connection("control", notes.Regime, 1)
	defer c.o.Metrics.Connection("control", notes.Regime, -1)
	if c.inbox.Give(ctx, secure) {
		<-over
	}
}

// cut ends a stream: events are told why, nothing new is answered, and after a
// moment the connection goes. It does not block.
func (p *peer) cut(refusal *wire.Refusal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause != nil {
		return
	}
	p.cause = refusal
	close(p.ended)
	p.grace = time.AfterFunc(cutGrace, func() { p.conn.Close() })
}

func (p *peer) stopGrace() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.grace != nil {
		p.grace.Stop()
	}
}

// refusal is why nothing may be asked on the stream, nil when it may.
func (p *peer) refusal(now time.Time) *wire.Refusal {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.refused != nil:
		return p.refused
	case p.cause != nil:
		return p.cause
	case now.After(p.notAfter):
		return refuseExpired()
	}
	return nil
}

func refuseExpired() *wire.Refusal {
	return wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the trust certificate has expired")
}

// extend gives every stream of the session and key the life of a newer
// certificate.
func (c *Control) extend(id trust.Identity) {
	for _, p := range c.all() {
		if p.identity.Session != id.Session || p.identity.Key != id.Key {
			continue
		}
		p.mu.Lock()
		if id.NotAfter.After(p.notAfter) {
			p.notAfter = id.NotAfter
		}
		p.mu.Unlock()
	}
}

func (c *Control) all() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*peer, 0, len(c.peers))
	for _, p := range c.peers {
		all = append(all, p)
	}
	return all
}

// sweep ends streams whose peer was not renewed. It goes by the clock on the
// wall, which may be set, and not by timers.
func (c *Control) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := c.now()
		for _, p := range c.all() {
			p.mu.Lock()
			expired := now.After(p.notAfter)
			p.mu.Unlock()
			if expired {
				p.cut(refuseExpired())
			}
		}
	}
}

type peerKey struct{}

// streamServer is the http.Server of all streams.
func (c *Control) streamServer() *http.Server {
	return &http.Server{
		Handler: c.guard(c.admitted(routes{
			wire.PathToken:       {http.MethodPost: answerPeer(c, maxCluster, c.token)},
			wire.PathCertificate: {http.MethodPost: answerPeer(c, maxLogin, c.certificate)},
			wire.PathClusters:    {http.MethodGet: c.clusters},
			wire.PathEvents:      {http.MethodGet: c.events},
			wire.PathLogout:      {http.MethodPost: c.logout},
			wire.PathDevice:      {http.MethodGet: c.device},
		})),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			c.mu.Lock()
			defer c.mu.Unlock()
			return context.WithValue(ctx, peerKey{}, c.peers[conn])
		},
	}
}

// admitted refuses every request of a peer that must not pass.
func (c *Control) admitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := r.Context().Value(peerKey{}).(*peer)
		if p == nil { // cannot be: every stream is entered before it is served
			edge.WriteRefusal(w, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"))
			return
		}
		if refusal := p.refusal(c.now()); refusal != nil {
			edge.WriteRefusal(w, c.refused("stream", p.record(audit.EventStream), refusal, nil))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func peerOf(r *http.Request) *peer { return r.Context().Value(peerKey{}).(*peer) }

// record fills in who.
func (p *peer) record(event audit.Event) audit.Record {
	r := audit.Record{
		Event: event, User: &p.identity.User, Device: p.identity.Device, Session: p.identity.Session, Regime: p.notes.Regime,
	}
	if p.notes.Client.IsValid() {
		r.Source = p.notes.Client.Addr().String()
	}
	return r
}

// answerPeer is answer for the streams. A peer has proved who he is, one request
// is read of a stream at a time, and the edge bounds the streams of a device.
func answerPeer[Request, Response any](c *Control, most int64, step func(context.Context, *peer, *Request) (*Response, *wire.Refusal)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, in := peerOf(r), new(Request)
		if refusal := readJSON(w, r, most, in); refusal != nil {
			edge.WriteRefusal(w, c.refused("stream", p.record(audit.EventStream), refusal, nil))
			return
		}
		out, refusal := step(r.Context(), p, in)
		if refusal != nil {
			edge.WriteRefusal(w, refusal)
			return
		}
		writeJSON(w, http.StatusOK, out)
	}
}

// certificate renews the session's certificate over its own stream.
func (c *Control) certificate(ctx context.Context, p *peer, in *wire.RenewRequest) (*wire.Certificate, *wire.Refusal) {
	r := p.record(audit.EventRenewed)
	certificate, refusal, err := c.renew(ctx, p.identity, in, r)
	if refusal != nil {
		return nil, c.refused("renew", r, refusal, err)
	}
	renewed := p.identity
	renewed.NotAfter = certificate.NotAfter
	c.extend(renewed)
	return certificate, nil
}

// watchedConn tells when it is closed.
type watchedConn struct {
	net.Conn
	over chan struct{}
	once sync.Once
}

// Close implements net.Conn.
func (w *watchedConn) Close() error {
	err := w.Conn.Close()
	w.once.Do(func() { close(w.over) })
	return err
}
