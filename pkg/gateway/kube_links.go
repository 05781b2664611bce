package gateway

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// sweepEvery is how often the ends of certificates are looked at.
const sweepEvery = 500 * time.Millisecond

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

// sweep cuts the connections whose certificate has ended, and the streams that
// policy does not allow any more. It goes by the clock on the wall, which may be
// set, and not by timers, which would not notice.
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
