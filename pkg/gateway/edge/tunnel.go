package edge

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// cutGrace is what a backend gets to tell the laptop why, when a stream or a
// connection is cut. What comes from the laptop no cluster hears from the cut on.
const cutGrace = time.Second

// tunnel is one connection on tunnel.DOMAIN.
type tunnel struct {
	edge   *Edge
	conn   *peekedConn
	client netip.AddrPort
	// streams ends with the right to have streams to clusters.
	streams    context.Context
	endStreams context.CancelFunc

	mu       sync.Mutex
	identity trust.Identity
	release  func()
	refusal  *wire.Refusal // why it was cut
	grace    *time.Timer
	over     bool // no request begins any more
	requests int  // that run
	idle     chan struct{}
	closed   bool // out of the register, and never in it again
}

// begin counts a request in; false when the connection is over. net/http does
// not wait for handlers, so the tunnel does.
func (t *tunnel) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	t.requests++
	return true
}

func (t *tunnel) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests--; t.requests == 0 && t.over {
		close(t.idle)
	}
}

// wait returns when no request runs and none can begin.
func (t *tunnel) wait() {
	t.mu.Lock()
	t.over = true
	if t.requests == 0 {
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	<-t.idle
}

// serveTunnel does the handshake of tunnel.DOMAIN, registers the connection and
// waits for its end.
func (e *Edge) serveTunnel(ctx context.Context, conn *peekedConn, client netip.AddrPort, known func()) {
	secure, ok := e.handshake(ctx, conn, e.tunnelTLS, RegimeTunnel)
	if !ok {
		return
	}
	state := secure.ConnectionState()
	identity, err := trust.ParseTrustCertificate(state.PeerCertificates[0], e.o.TrustDomain)
	if err != nil { // the handshake has verified it: not reached
		conn.Close()
		return
	}
	known() // no stranger any more
	leave, ok := e.connections.Enter(identity.Key)
	if !ok {
		e.o.Metrics.Handshake(RegimeTunnel, "crowded")
		conn.Close()
		return
	}
	defer leave()

	t := &tunnel{edge: e, conn: conn, client: client, idle: make(chan struct{})}
	t.streams, t.endStreams = context.WithCancel(ctx)
	defer t.endStreams()
	if refusal := t.show(identity); refusal != nil {
		conn.Close()
		return
	}
	defer t.close()
	e.mu.Lock()
	e.live[secure] = t
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.live, secure)
		e.mu.Unlock()
	}()

	e.o.Metrics.Connection("edge", RegimeTunnel, 1)
	defer e.o.Metrics.Connection("edge", RegimeTunnel, -1)
	e.record(t.note(audit.Record{Decision: audit.Allowed}))
	if !e.tunnel.inbox.Give(ctx, secure) {
		conn.Close()
	}
	<-conn.closed
	t.endStreams()
	t.wait()
}

type tunnelKey struct{}

// tunnelContext lets a request find its connection.
func (e *Edge) tunnelContext(ctx context.Context, conn net.Conn) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return context.WithValue(ctx, tunnelKey{}, e.live[conn])
}

// serveTunnelHTTP is everything that can be asked on tunnel.DOMAIN.
func serveTunnelHTTP(w http.ResponseWriter, r *http.Request) {
	t, _ := r.Context().Value(tunnelKey{}).(*tunnel)
	if t == nil || !t.begin() { // every connection is entered before it is served
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	defer t.end()
	switch {
	case r.Method == http.MethodConnect:
		t.connect(w, r)
	case r.Method == http.MethodPost && r.URL.Path == wire.PathRenewPeer && r.URL.RawQuery == "":
		t.renew(w, r)
	default:
		t.refusePlain(w, wire.Refuse(wire.ReasonMethod, "", "here is CONNECT, and nothing else"))
	}
}

// current is the latest certificate shown.
func (t *tunnel) current() trust.Identity {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.identity
}

// show makes identity the connection's, registered before it is checked, so
// that a revocation at the same moment finds it either way.
func (t *tunnel) show(identity trust.Identity) *wire.Refusal {
	facts := t.edge.o.Facts(identity)
	release := t.edge.o.Registry.Register(facts, t.cut)
	if refusal := t.edge.o.Registry.Check(facts); refusal != nil {
		release()
		return refusal
	}
	t.mu.Lock()
	if t.closed {
		// A renewal that the end has overtaken: nobody would take it out again.
		t.mu.Unlock()
		release()
		return wire.Refuse(wire.ReasonShuttingDown, "try again", "the connection has ended")
	}
	before := t.release
	t.identity, t.release = identity, release
	t.mu.Unlock()
	if before != nil {
		before()
	}
	return nil
}

// cut ends the connection for a reason: no new streams from now on, nothing more
// to clusters on those that run, and after a moment the end. It does not block.
func (t *tunnel) cut(refusal *wire.Refusal) {
	t.mu.Lock()
	first := t.refusal == nil
	if first {
		t.refusal = refusal
		t.grace = time.AfterFunc(cutGrace, func() { t.conn.Close() })
	}
	t.mu.Unlock()
	if first {
		t.endStreams()
		t.edge.o.Metrics.Cut("edge", refusal.Reason)
		t.edge.record(t.note(audit.Record{Decision: audit.Refused, Reason: refusal.Reason, Message: refusal.Message}))
	}
}

// close takes the connection out of the register.
func (t *tunnel) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.release()
	if t.grace != nil {
		t.grace.Stop()
	}
}

// gone is why the connection was cut, nil while it was not.
func (t *tunnel) gone() *wire.Refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusal
}

// note fills in who.
func (t *tunnel) note(r audit.Record) audit.Record {
	id := t.current()
	r.Event = audit.EventTunnel
	r.User, r.Device, r.Session = &id.User, id.Device, id.Session
	r.Source, r.Regime = t.client.Addr().String(), RegimeTunnel
	return r
}

// record writes an event. The edge lets nobody in to anything, so it goes on
// when the log does not; the log itself reports that.
func (e *Edge) record(r audit.Record) {
	if e.o.Audit != nil {
		_ = e.o.Audit.Event(r)
	}
}
