package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// cutGrace is how long the requests of a connection that is cut have to tell
	// their clients why.
	cutGrace = 1200 * time.Millisecond
	// afterEnd is how long a connection outlives its certificate, for a renewal
	// that is on its way.
	afterEnd = 3 * time.Second
	// refusedTime is how long a connection lives on which every request is
	// refused.
	refusedTime = 30 * time.Second
	// strangerTime is how long a direct connection lives on which nobody has
	// proved who he is.
	strangerTime = 15 * time.Second
	// sweepEvery is how often the ends of certificates are looked at.
	sweepEvery = 500 * time.Millisecond
	// garbageRecords is how many streams a second that proved nothing are
	// recorded. The metrics count every one; a line for each would let a stranger
	// fill the disk, and without the audit log nothing goes any more.
	garbageRecords = 10
	// strangerRecords is the same for requests that nobody is known to make, which
	// only the direct name can have.
	strangerRecords = 20
)

// link is one accepted connection: the person that it belongs to, for how long,
// and everything that goes on in it.
type link struct {
	kube   *Kube
	conn   *tls.Conn
	notes  edge.Notes
	holder limit.Holder // in whose name limits are counted
	source string       // address for the record, "" if unknown
	host   string       // what Host must be
	regime string
	done   chan struct{} // closed when the connection is

	ctx    context.Context // of all requests on it
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	identity *trust.Identity // nil for direct; the latest that was renewed
	refusal  *wire.Refusal   // every request gets it
	until    time.Time       // where the certificate ends it, zero for never
	notice   *time.Timer     // to one that is refused, or not known yet
	release  func()          // out of the registry
	closed   bool
}

// peerKey is what stays the same when a certificate is renewed.
type peerKey struct {
	session wire.SessionID
	key     wire.Thumbprint
}

// links holds the live connections of one Kube.
type links struct {
	kube *Kube

	mu     sync.Mutex
	byConn map[*tls.Conn]*link
	byPeer map[peerKey]map[*link]struct{}
	idle   chan struct{} // closed while there is none; replaced by the next one
}

func (ls *links) init(k *Kube) {
	ls.kube = k
	ls.byConn = map[*tls.Conn]*link{}
	ls.byPeer = map[peerKey]map[*link]struct{}{}
	ls.idle = make(chan struct{})
	close(ls.idle)
}

// ServeStream implements edge.Backend.
func (k *Kube) ServeStream(ctx context.Context, conn net.Conn, notes edge.Notes) {
	secure, peer, err := k.acceptor.Accept(ctx, conn)
	if err != nil {
		k.notAccepted(err, notes)
		return
	}
	if peer.Proof != nil && peer.Refusal == nil {
		k.renew(&peer.Proof.Identity)
	}
	if secure == nil {
		return // a renewal, which opens nothing
	}
	l := k.links.add(ctx, secure, peer, notes)
	if !k.queue.put(ctx, secure) {
		l.close()
	}
	stop := context.AfterFunc(ctx, func() {
		l.cut(wire.Refuse(wire.ReasonShuttingDown, "try again", "the connection ends"))
	})
	<-l.done
	stop()
}

// notAccepted records a stream that proved nothing, if there are not too many of
// them. One that never said anything is a health check, and no event.
func (k *Kube) notAccepted(err error, notes edge.Notes) {
	if errors.Is(err, io.EOF) {
		k.o.Metrics.Handshake(notes.Regime, "empty")
		return
	}
	k.o.Metrics.Handshake(notes.Regime, "refused")
	// What strangers send must not hide what somebody in a tunnel does.
	budget := k.garbage
	if notes.Regime == edge.RegimeDirect {
		budget = k.directGarbage
	}
	if !budget.AllowN(k.o.Now(), 1) {
		return
	}
	record := audit.Record{
		Event: audit.EventStream, Cluster: k.name, Decision: audit.Refused, Reason: wire.ReasonProofInvalid,
		Source: address(notes), Regime: notes.Regime, Session: notes.Session, Device: notes.Device,
		Error: audit.Clip(err.Error(), 300),
	}
	_ = k.o.Audit.Event(record)
}

func address(notes edge.Notes) string {
	if !notes.Client.IsValid() {
		return ""
	}
	return notes.Client.Addr().Unmap().String()
}

// stranger is in whose name the requests of nobody are counted: an IPv4 address,
// or an IPv6 site. Shares are equal among holders, so whoever has many addresses
// must not be many.
func stranger(notes edge.Notes) string {
	sources := limit.Sources(notes.Client.Addr())
	return "source " + sources[len(sources)-1].String()
}

// directTLS is for streams without a preface, whatever the edge calls them.
// There are no kubeconfig certificates yet, so none is accepted.
func (k *Kube) directTLS() *tls.Config {
	certificate := k.o.Certificate
	if c := k.cluster(k.o.Snapshot()); c == nil || !c.Spec.Direct {
		certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errDirectOff }
	}
	return trust.DirectServer(certificate, x509.NewCertPool, k.o.TrustDomain, k.name)
}

var errDirectOff = errors.New("the stream has no proof, and the cluster's direct name is off")

// add registers the connection before anybody asks whether it is revoked.
func (ls *links) add(ctx context.Context, secure *tls.Conn, peer *evidence.Peer, notes edge.Notes) *link {
	k := ls.kube
	l := &link{
		kube: k, conn: secure, notes: notes, source: address(notes),
		host: k.host, regime: edge.RegimeTunnel, refusal: peer.Refusal, done: make(chan struct{}), release: func() {},
	}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.holder.Name = stranger(notes)
	if peer.Direct() {
		l.host, l.regime = k.directHost, edge.RegimeDirect
		if secure.ConnectionState().ServerName != k.directHost {
			l.refusal = wire.Refuse(wire.ReasonWrongHost, "", "%q is not served here", secure.ConnectionState().ServerName)
		}
	} else {
		l.identity = &peer.Proof.Identity
		l.holder = limit.Holder{Name: string(l.identity.User.Issuer) + " " + string(l.identity.User.Subject), Device: l.identity.Device}
	}
	ls.mu.Lock()
	if len(ls.byConn) == 0 {
		ls.idle = make(chan struct{})
	}
	ls.byConn[secure] = l
	if l.identity != nil {
		key := peerKey{l.identity.Session, l.identity.Key}
		if ls.byPeer[key] == nil {
			ls.byPeer[key] = map[*link]struct{}{}
		}
		ls.byPeer[key][l] = struct{}{}
	}
	ls.mu.Unlock()
	switch identity, refusal := l.peer(); {
	case refusal != nil:
		l.refuse(refusal)
	case identity == nil:
		l.giveNotice(strangerTime, wire.Refuse(wire.ReasonUnauthenticated, "", "nobody proved in time who he is on this connection"))
	default:
		if refusal := l.hold(*identity); refusal != nil {
			l.refuse(refusal)
		}
	}
	k.o.Metrics.Connection("kube", l.regime, 1)
	return l
}

// hold registers the connection under the facts of a certificate and lets it
// live until that one's end. A refusal means that nothing has changed.
func (l *link) hold(id trust.Identity) *wire.Refusal {
	k := l.kube
	facts := k.o.Facts(id)
	facts.Cluster = k.name
	release := k.o.Registry.Register(facts, l.cut)
	if refusal := k.o.Registry.Check(facts); refusal != nil {
		release()
		return refusal
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		release()
		return nil
	}
	old := l.release
	l.release, l.identity, l.until = release, &id, id.NotAfter.Add(afterEnd)
	l.mu.Unlock()
	old()
	return nil
}

// refuse has every request on the connection answered with a refusal. There is
// time to be told, and no more.
func (l *link) refuse(refusal *wire.Refusal) {
	l.mu.Lock()
	if l.refusal == nil {
		l.refusal = refusal
	}
	l.mu.Unlock()
	l.giveNotice(refusedTime, refusal)
}

// giveNotice cuts the connection after a while, unless somebody is proven.
func (l *link) giveNotice(after time.Duration, refusal *wire.Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.notice != nil {
		l.notice.Stop()
	}
	if !l.closed {
		l.notice = time.AfterFunc(after, func() { l.cut(refusal) })
	}
}

// proven is called when a request on the connection was authenticated.
func (l *link) proven() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.notice != nil && l.refusal == nil {
		l.notice.Stop()
		l.notice = nil
	}
}

// sweep cuts the connections whose certificate has ended, and the streams that
// policy does not allow any more. It goes by the clock on
// the wall, which may be set, and not by timers, which would not notice.
func (ls *links) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := ls.kube.o.Now()
		if s := ls.kube.o.Snapshot(); s != nil {
			ls.kube.judgements.again(s.Policy, ls.kube.o.Further, now)
			if refusal := ls.kube.outdated(s); refusal != nil {
				ls.kube.judgements.cutAll(refusal)
			}
		}
		for _, l := range ls.all() {
			if l.shut() {
				l.cut(wire.Refuse(wire.ReasonClusterDisabled, "", "this cluster's direct name was switched off"))
			}
			if l.ended(now) {
				l.cut(wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the session's certificate has ended and was not renewed"))
			}
		}
	}
}

// shut reports whether l came by the direct name, which has been switched off since.
func (l *link) shut() bool {
	if l.regime != edge.RegimeDirect {
		return false
	}
	cluster := l.kube.cluster(l.kube.o.Snapshot())
	return cluster == nil || !cluster.Spec.Direct
}

// ended reports whether l has outlived its certificate and was not cut yet.
func (l *link) ended(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal == nil && !l.until.IsZero() && now.After(l.until)
}

// renew extends every connection of a session on a device to the end of a newer
// certificate for the same two, and cuts them when that one is revoked.
func (k *Kube) renew(id *trust.Identity) {
	ls := &k.links
	ls.mu.Lock()
	var renewed []*link
	for l := range ls.byPeer[peerKey{id.Session, id.Key}] {
		renewed = append(renewed, l)
	}
	ls.mu.Unlock()
	for _, l := range renewed {
		l.mu.Lock()
		newer := l.refusal == nil && l.identity.User.Same(id.User) && id.NotAfter.After(l.identity.NotAfter)
		l.mu.Unlock()
		if !newer {
			continue
		}
		if refusal := l.hold(*id); refusal != nil {
			l.cut(refusal)
		}
	}
}

// peer is whose connection it is now, nil for direct, and why he is refused.
func (l *link) peer() (*trust.Identity, *wire.Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity, l.refusal
}

// cut ends everything on the connection with a reason and then the connection.
// It does not block.
func (l *link) cut(refusal *wire.Refusal) {
	l.mu.Lock()
	first := l.refusal == nil
	if first {
		l.refusal = refusal
	}
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return
	}
	if first {
		l.kube.o.Metrics.Cut("kube", refusal.Reason)
	}
	l.cancel(refusal)
	time.AfterFunc(cutGrace, func() { l.conn.NetConn().Close() })
}

// close is called when the connection is over.
func (l *link) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	if l.notice != nil {
		l.notice.Stop()
	}
	release, identity := l.release, l.identity
	l.mu.Unlock()
	l.conn.Close()
	l.cancel(net.ErrClosed)
	release()

	ls := &l.kube.links
	ls.mu.Lock()
	delete(ls.byConn, l.conn)
	if identity != nil {
		key := peerKey{identity.Session, identity.Key}
		delete(ls.byPeer[key], l)
		if len(ls.byPeer[key]) == 0 {
			delete(ls.byPeer, key)
		}
	}
	if len(ls.byConn) == 0 {
		close(ls.idle)
	}
	ls.mu.Unlock()
	l.kube.o.Metrics.Connection("kube", l.regime, -1)
	close(l.done)
}

func (ls *links) of(conn net.Conn) *link {
	secure, _ := conn.(*tls.Conn)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.byConn[secure]
}

func (ls *links) all() []*link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return slices.Collect(maps.Values(ls.byConn))
}

func (ls *links) cutAll(refusal *wire.Refusal) {
	for _, l := range ls.all() {
		l.cut(refusal)
	}
}

// wait returns when no connection is left, or after d.
func (ls *links) wait(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	ls.until(ctx)
}

// until returns when no connection is left, or when ctx has ended.
func (ls *links) until(ctx context.Context) {
	ls.mu.Lock()
	idle := ls.idle
	ls.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Limits of an accepted connection (VECTORS, decision 23).
const (
	headerLimit     = 64 << 10
	headerTime      = 10 * time.Second
	idleTime        = 10 * time.Minute
	streamsPerLink  = 100
	streamWindow    = 1 << 20
	maxRequestBody  = 3 << 20
	requestTime     = 75 * time.Second // the API server's own is 60 s
	maxPath         = 8 << 10
	linkPingAfter   = 30 * time.Second
	linkPingTimeout = 15 * time.Second
)

type linkKey struct{}

// newServer reads requests off accepted connections. There is no write timeout:
// a watch may last for days.
func (k *Kube) newServer() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(k.serve),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		// net/http allows 4 KiB of slack on top.
		MaxHeaderBytes: headerLimit - 4<<10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streamsPerLink,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: 4*streamWindow - 1,
			SendPingTimeout:               linkPingAfter,
			PingTimeout:                   linkPingTimeout,
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			l := k.links.of(conn)
			if l == nil {
				return ctx
			}
			// What ends the link ends every request on it, with its reason.
			ctx, cancel := context.WithCancelCause(ctx)
			context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })
			return context.WithValue(ctx, linkKey{}, l)
		},
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				if l := k.links.of(conn); l != nil {
					l.close()
				}
			}
		},
		// Broken handshakes and vanished clients are no events of ours.
		ErrorLog: slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
	}
}

// queue hands accepted connections to the server. It is the server's listener.
type queue struct {
	conns chan *tls.Conn
	once  sync.Once
	ended chan struct{}
}

func newQueue() *queue { return &queue{conns: make(chan *tls.Conn), ended: make(chan struct{})} }

// put reports whether the server took conn.
func (q *queue) put(ctx context.Context, conn *tls.Conn) bool {
	select {
	case q.conns <- conn:
		return true
	case <-q.ended:
	case <-ctx.Done():
	}
	return false
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.ended:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.ended) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.UnixAddr{Name: "streams", Net: "memory"} }
