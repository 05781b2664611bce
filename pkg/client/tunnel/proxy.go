package tunnel

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// waitLimit is how long kubectl is kept waiting where nothing can be promised.
	waitLimit = 20 * time.Second
	// rememberFor is how long the cause of a refused optimistic stream is told to
	// later attempts.
	rememberFor = 10 * time.Second
	// maxStreams of one profile; the gateway allows 256 per device, control's
	// stream and renewals among them. More connections wait for their turn.
	maxStreams = 240
	queueLimit = 30 * time.Second
	// maxConns bounds the connections of one listener that were admitted, maxWaiting
	// those that were not yet.
	maxConns   = 1024
	maxWaiting = 256
)

// Target is a cluster as the proxy sees it.
type Target struct {
	Host     string // CLUSTER.DOMAIN
	Audience string // of proofs: the cluster's UID; unknown until Open has waited
	// Optimistic says that connection, certificate and the cluster's last pushed
	// state are good, so that the CONNECT may be answered before it is made.
	Optimistic bool
	// Epoch changes with whatever may turn a refusal into consent: the session,
	// the person's roles, the clusters.
	Epoch uint64
}

// Route is a profile, for the proxy.
type Route interface {
	// Target decides about a host from what is known here; it asks nobody.
	Target(host string) (Target, error)
	// Open opens a stream to the target. For an optimistic one it does not block;
	// else it waits for what is missing and for the edge's consent.
	Open(ctx context.Context, t *Target) (*h2conn.Stream, error)
	// Proof signs the peer proof of a stream.
	Proof(audience string, hello []byte) (string, error)
}

// Routes finds a profile and its secret; a nil Route means that there is none.
type Routes func(profile string) (Route, string)

// Proxy is the loopback CONNECT proxy. It may serve several listeners.
type Proxy struct {
	Routes Routes
	Log    *slog.Logger
	// Owner tells the user id behind a connection, for the secretless port; nil
	// means the operating system's word.
	Owner func(peer, own netip.AddrPort) (int, error)
	// Address makes the hints of a refusal mean the profile that was asked for, or
	// that the client says it is of. Nil leaves them as they are.
	Address func(profile string, f *fault.Fault) *fault.Fault

	mu     sync.Mutex
	causes map[string]cause         // by profile and host
	slots  map[string]chan struct{} // by profile
	inUse  map[string]map[string]int
}

type cause struct {
	fault *fault.Fault
	until time.Time
	epoch uint64 // of the target that was refused
}

// Serve answers on l until ctx ends, then closes l and every connection, and
// returns when all are gone. With open, the named profile is served to processes
// of the same user without a secret.
func (p *Proxy) Serve(ctx context.Context, l net.Listener, open string) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	room := &room{}
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			// Out of descriptors, most likely: let some go before the next try.
			p.Log.Warn("accept failed", "error", err.Error())
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		room.wait(conn)
		conns.Go(func() { p.serve(ctx, conn, open, room) })
	}
}

// serve owns conn. A panic ends this connection only.
func (p *Proxy) serve(ctx context.Context, conn net.Conn, open string, room *room) {
	defer room.leave(conn)
	defer conn.Close()
	defer func() {
		if v := recover(); v != nil {
			p.Log.Error("panic in the proxy", "value", fault.Panic(v))
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	h, r, err := readHead(conn)
	if err != nil {
		if errors.Is(err, errMalformed) {
			refuse(http.StatusBadRequest, "kubectl zt kubeconfig", "%v", errMalformed).answer(conn)
		}
		return
	}
	if no := p.connect(ctx, conn, r, h, open, room); no != nil {
		// The one place that every refusal passes, whoever made or remembered it.
		if p.Address != nil {
			no.fault = p.Address(cmp.Or(open, h.profile()), no.fault)
		}
		p.Log.Debug("CONNECT refused", "status", no.status, "why", no.fault.What)
		no.answer(conn)
	}
}

// connect admits one CONNECT and carries it. What it returns is still to be
// answered; nil means that the answer was given.
func (p *Proxy) connect(ctx context.Context, conn net.Conn, r *bufio.Reader, h *head, open string, room *room) *refusal {
	if no := h.check(); no != nil {
		return no
	}
	profile, route, no := p.admit(conn, h, open)
	if no != nil {
		return no
	}
	if !room.enter(conn) {
		return refuse(http.StatusServiceUnavailable, "close some and try again", "%d connections are open, which is the limit", maxConns)
	}
	host, no := h.host()
	if no != nil {
		return no
	}
	t, err := route.Target(host)
	if err != nil {
		return &refusal{http.StatusForbidden, fault.Of(err)}
	}
	key := profile + " " + host
	if f := p.remembered(key, t.Epoch); f != nil {
		return &refusal{http.StatusServiceUnavailable, f}
	}
	release, no := p.slot(ctx, profile, host)
	if no != nil {
		return no
	}
	defer release()
	if t.Optimistic {
		if refused := p.carry(ctx, conn, r, route, &t, nil); refused != nil {
			p.remember(key, t.Epoch, refused)
		}
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, waitLimit)
	stream, err := route.Open(waiting, &t)
	cancel()
	if err != nil {
		return &refusal{http.StatusServiceUnavailable, Refused(err)}
	}
	_ = p.carry(ctx, conn, r, route, &t, stream)
	return nil
}

// admit decides who is asking.
func (p *Proxy) admit(conn net.Conn, h *head, open string) (string, Route, *refusal) {
	if open != "" {
		if err := p.sameUser(conn); err != nil {
			return "", nil, refuse(http.StatusForbidden, "kubectl zt tunnel", "this port serves the user who opened it: %v", err)
		}
		route, _ := p.Routes(open)
		if route == nil {
			return "", nil, refuse(http.StatusServiceUnavailable, "kubectl zt login", "profile %s is gone", open)
		}
		return open, route, nil
	}
	profile, secret, ok := h.credentials()
	route, want := p.Routes(profile)
	if !ok || !sameSecret(secret, want) || route == nil {
		return "", nil, refuse(http.StatusProxyAuthRequired, "kubectl zt kubeconfig", "the proxy's secret is missing or stale")
	}
	return profile, route, nil
}

func (p *Proxy) sameUser(conn net.Conn) error {
	peer, err1 := netip.ParseAddrPort(conn.RemoteAddr().String())
	own, err2 := netip.ParseAddrPort(conn.LocalAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	owner := p.Owner
	if owner == nil {
		owner = ownerOf
	}
	uid, err := owner(peer, own)
	if err != nil {
		return err
	}
	if uid != os.Geteuid() {
		return errors.New("another user asked")
	}
	return nil
}

// carry moves the bytes of one connection. stream is nil where the answer was not
// waited for; what is returned is then what the edge, later, said no with. A way
// that merely broke is no reason to turn the next attempt away.
func (p *Proxy) carry(ctx context.Context, conn net.Conn, r *bufio.Reader, route Route, t *Target, stream *h2conn.Stream) *h2conn.RefusedError {
	optimistic := stream == nil
	defer func() {
		if stream != nil {
			stream.Close()
		}
	}()
	if _, err := conn.Write([]byte("HTTP/1.1 200 zt\r\n\r\n")); err != nil {
		return nil
	}
	if conn.SetReadDeadline(time.Now().Add(headLimit)) != nil {
		return nil
	}
	hello, err := evidence.ReadHello(r)
	if err != nil {
		p.Log.Debug("no TLS on a CONNECT", "error", err.Error())
		return nil
	}
	if conn.SetReadDeadline(time.Time{}) != nil {
		return nil
	}
	first, err := announce(hello, t.Audience, route.Proof)
	if err == nil && optimistic {
		stream, err = route.Open(ctx, t)
	}
	if err == nil {
		_, err = stream.Write(first)
	}
	if err == nil {
		err = splice(ctx, conn, r, stream)
	}
	var refused *h2conn.RefusedError
	switch {
	case optimistic && errors.As(err, &refused):
		return refused
	case err != nil:
		p.Log.Debug("connection broke", "host", t.Host, "error", fault.Escape(err.Error()))
	}
	return nil
}

// lastWords is how long kubectl may take to read what the far side has said at
// its end.
const lastWords = 5 * time.Second

// splice copies both ways until both ends have finished, keeping half-closes.
func splice(ctx context.Context, conn net.Conn, r *bufio.Reader, stream *h2conn.Stream) error {
	stop := context.AfterFunc(ctx, stream.Abort)
	defer stop()
	kubectl := &upward{Conn: conn, r: r}
	var up sync.WaitGroup
	up.Go(func() {
		switch srcErr, dstErr := stream.Pull(kubectl); {
		case srcErr != nil:
			stream.Abort() // kubectl was cut off: so is the far side
		case dstErr != nil:
			// The far side wants no more, and may have said why: that would be lost
			// with the stream, and in a connection that is reset, as one is that is
			// closed with unread bytes in it.
			kubectl.again()
			_, _ = io.Copy(io.Discard, r)
		default:
			_ = stream.CloseWrite()
		}
	})
	srcErr, dstErr := copyBytes(kubectl.downward(), stream)
	if err := cmp.Or(srcErr, dstErr); err != nil {
		conn.Close()
		stream.Abort()
		up.Wait()
		return err
	}
	// What kubectl sends after the far side's end goes nowhere.
	err := conn.(interface{ CloseWrite() error }).CloseWrite()
	kubectl.last()
	up.Wait()
	return err
}

// Refused is the Fault for an error of Route.Open: the edge's own words where it
// said some.
func Refused(err error) *fault.Fault {
	var refused *h2conn.RefusedError
	if errors.As(err, &refused) {
		return fault.Of(refused.Refusal)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.ExitUnreachable, "kubectl zt status", "the gateway did not answer in time").Because(wire.ReasonUpstreamTimeout)
	}
	var known *fault.Fault
	var refusal *wire.Refusal
	if errors.As(err, &known) || errors.As(err, &refusal) || errors.Is(err, context.Canceled) {
		return fault.Of(err)
	}
	// A library's word for a way that broke means nothing to who reads it in
	// kubectl's output.
	return fault.New(fault.ExitUnreachable, "kubectl zt status", "the gateway could not be asked: %v", err)
}

func (p *Proxy) remember(key string, epoch uint64, refused *h2conn.RefusedError) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.causes == nil {
		p.causes = map[string]cause{}
	}
	now := time.Now()
	for k, c := range p.causes {
		if now.After(c.until) {
			delete(p.causes, k)
		}
	}
	p.causes[key] = cause{Refused(refused), now.Add(rememberFor), epoch}
}

func (p *Proxy) remembered(key string, epoch uint64) *fault.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.causes[key]; ok && c.epoch == epoch && time.Now().Before(c.until) {
		return c.fault
	}
	return nil
}

// slot waits for one of the profile's places and counts the host as in use.
func (p *Proxy) slot(ctx context.Context, profile, host string) (release func(), no *refusal) {
	p.mu.Lock()
	if p.slots == nil {
		p.slots, p.inUse = map[string]chan struct{}{}, map[string]map[string]int{}
	}
	slots := p.slots[profile]
	if slots == nil {
		slots = make(chan struct{}, maxStreams)
		p.slots[profile], p.inUse[profile] = slots, map[string]int{}
	}
	p.mu.Unlock()
	timer := time.NewTimer(queueLimit)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, refuse(http.StatusServiceUnavailable, "try again", "the tunnel is closing")
	case <-timer.C:
		return nil, refuse(http.StatusServiceUnavailable, "close some and try again", "%d connections are open, which is the limit", maxStreams)
	}
	count := func(n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if hosts := p.inUse[profile]; hosts[host]+n > 0 {
			hosts[host] += n
		} else {
			delete(hosts, host)
		}
	}
	count(1)
	return func() {
		count(-1)
		<-slots
	}, nil
}

// InUse tells, for a profile, how many connections each host has.
func (p *Proxy) InUse(profile string) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	hosts := make(map[string]int, len(p.inUse[profile]))
	for h, n := range p.inUse[profile] {
		hosts[h] = n
	}
	return hosts
}

// Idle reports whether nothing is carried at all.
func (p *Proxy) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, hosts := range p.inUse {
		if len(hosts) > 0 {
			return false
		}
	}
	return true
}
