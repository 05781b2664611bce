package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// cutGrace is how long the requests of a connection that is cut have to tell
	// their clients why.
	cutGrace = 1200 * time.Millisecond
	// hardAfter is how long a connection that could not be written to may take to
	// close.
	hardAfter = 100 * time.Millisecond
	// afterEnd is how long a connection outlives its certificate, for a renewal
	// that is on its way.
	afterEnd = 3 * time.Second
	// refusedTime is how long a connection lives on which every request is
	// refused.
	refusedTime = 30 * time.Second
	// strangerTime is how long a direct connection lives on which nobody has
	// proved who he is.
	strangerTime = 15 * time.Second
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
