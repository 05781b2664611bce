package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// another connection is opened at this many streams; the edge's limit is
	// h2conn.MaxStreams, and streams cannot be moved.
	crowded = 80
	// silence after which a connection is doubted before it gets a stream: a
	// laptop that changed its network learns it by a ping and not by kubectl's
	// time-out.
	silence    = 10 * time.Second
	probeLimit = 3 * time.Second
	// handshakeLimit is for TLS after the TCP connection stands. A hardware key
	// signs slowly.
	handshakeLimit = 10 * time.Second
	// backoff between attempts that nobody waits for, jittered.
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 30 * time.Second
	// farewell is for streams that run when the session ends. It is the gateway
	// that ends them, and it tells kubectl why; we would only cut it short.
	farewell = 1500 * time.Millisecond
	// tick is how often the wall clock is held against the monotonic one, which
	// stands still while the machine sleeps; what they differ by more than this is
	// taken for sleep.
	tick = 5 * time.Second
)

// OuterConfig is what an Outer needs. All fields but Expired and Now are required.
type OuterConfig struct {
	// Address is host:port of the login URL, ServerName the name of tunnel.
	Address    string
	ServerName string
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS makes the configuration of each handshake: roots and the certificate
	// of the moment.
	TLS       func() *tls.Config
	UserAgent string
	// Trust is the command that accepts the gateway as it is now.
	Trust string
	// Expired is called when the edge says that the certificate has expired, which
	// is the end of that certificate and not of the session. It must not block.
	Expired func()
	Log     *slog.Logger
	// Now is the wall clock, which runs on while the machine sleeps; nil means
	// time.Now.
	Now func() time.Time
}

// Outer is the warm connection of one profile to the edge, or two of them when
// one is crowded. It is safe for concurrent use.
type Outer struct {
	cfg OuterConfig

	wake    chan struct{} // capacity 1
	stopped chan struct{} // closed by close
	work    sync.WaitGroup

	mu      sync.Mutex
	links   []*link
	dialing chan struct{} // closed when the attempt under way has ended
	failed  error         // of the last attempt; nil when it succeeded
	closed  bool
	awake   moment // when it was last known that the machine has not slept since

	rousing sync.Mutex    // held by who looks at the connections after sleep
	every   time.Duration // between two looks of Run; tick, but in tests
}

// moment is a time by both clocks.
type moment struct {
	wall time.Time // OuterConfig.Now's
	mono time.Time // this process's, for time.Since
}

// link is one connection.
type link struct {
	*h2conn.Client
	heard time.Time // guarded by Outer.mu: last sign of life
}

// NewOuter opens nothing.
func NewOuter(cfg OuterConfig) *Outer {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o := &Outer{cfg: cfg, wake: make(chan struct{}, 1), stopped: make(chan struct{}), every: tick}
	o.awake = o.moment()
	return o
}

// Run keeps one connection warm until ctx ends, and then closes all.
func (o *Outer) Run(ctx context.Context) error {
	defer o.close()
	backoff := firstBackoff
	ticker := time.NewTicker(o.every)
	defer ticker.Stop()
	for {
		l, err := o.usable(ctx)
		switch {
		case err == nil:
			backoff = firstBackoff
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.Done():
				o.cfg.Log.Debug("connection to the edge ended")
			case <-o.wake:
			case <-ticker.C:
				o.Rouse(ctx)
			}
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			o.cfg.Log.Debug("edge not reached", "error", fault.Of(err).What, "retry", backoff.String())
			// Full jitter: a gateway that restarts is not met by all at once.
			timer := time.NewTimer(backoff/2 + rand.N(backoff))
			select {
			case <-ctx.Done():
			case <-timer.C:
			case <-o.wake: // somebody needs it now
			}
			timer.Stop()
			backoff = min(2*backoff, lastBackoff)
		}
	}
}

// Up reports whether a connection stands that can be promised a stream. One that
// the machine slept over cannot until it was probed; one whose peer vanished is
// gone after 30 s of silence at the latest (h2conn's pings).
func (o *Outer) Up() bool {
	if o.slept() > tick {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.links, func(l *link) bool { return l.Usable() })
}

func (o *Outer) moment() moment { return moment{o.cfg.Now().Round(0), time.Now()} }

// slept is how far the wall clock ran ahead of the monotonic one since the
// connections were last looked at. A clock that was set looks the same, and costs
// one ping.
func (o *Outer) slept() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.moment()
	return (now.wall.Sub(o.awake.wall) - now.mono.Sub(o.awake.mono)).Abs()
}

// Rouse finds out which connections are alive before anybody is sent down one of
// them: after sleep it waits for that, and all who come meanwhile share the look;
// what was merely silent for long it asks in passing.
func (o *Outer) Rouse(ctx context.Context) {
	if o.slept() > tick {
		o.rousing.Lock()
		defer o.rousing.Unlock()
		if slept := o.slept(); slept > tick {
			now := o.moment() // before the look: the machine may sleep again in it
			o.cfg.Log.Info("woke up", "slept", slept.Round(time.Second).String())
			o.Probe(context.WithoutCancel(ctx)) // who asked may leave; the answer is for all
			o.mu.Lock()
			o.awake = now
			o.mu.Unlock()
		}
		return
	}
	o.mu.Lock()
	links := slices.Clone(o.links)
	o.mu.Unlock()
	for _, l := range links {
		o.doubt(ctx, l)
	}
}

// Open is Connect that waits for the edge's answer. Until then nothing but the
// CONNECT was sent, so when the connection breaks in between, as one does whose
// network is gone, the same is asked once more over another one. What the edge
// says is a *h2conn.RefusedError, and what it could not say a Fault.
func (o *Outer) Open(ctx context.Context, authority string) (*h2conn.Stream, error) {
	for again := false; ; again = true {
		stream, err := o.Connect(ctx, authority)
		if err != nil {
			return nil, err
		}
		if _, err = stream.Response(ctx); err == nil {
			return stream, nil
		}
		stream.Abort()
		var refused *h2conn.RefusedError
		switch {
		case errors.As(err, &refused), ctx.Err() != nil:
			return nil, err
		case again:
			o.cfg.Log.Info("connection to the edge broke twice", "error", fault.Escape(err.Error()))
			return nil, fault.New(fault.ExitUnreachable, fault.CheckNetwork, "the connection to the gateway at %s broke before it answered", o.cfg.Address)
		}
	}
}

// Connect opens a stream to authority on a connection that has room, and dials
// one where there is none. It does not wait for the edge's answer.
func (o *Outer) Connect(ctx context.Context, authority string) (*h2conn.Stream, error) {
	for range 3 {
		l, err := o.usable(ctx)
		if err != nil {
			return nil, err
		}
		stream, err := l.Connect(ctx, authority, nil)
		if err == nil {
			o.doubt(ctx, l)
			return stream, nil
		}
		if !errors.Is(err, h2conn.ErrClosed) && !errors.Is(err, h2conn.ErrFull) {
			return nil, fmt.Errorf("open stream: %w", err)
		}
	}
	return nil, fault.New(fault.ExitUnreachable, "try again", "the connection to the gateway ends as soon as it stands")
}

// usable returns a connection with room for a stream.
func (o *Outer) usable(ctx context.Context) (*link, error) {
	for {
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			return nil, fault.New(fault.ExitLogin, "kubectl zt login", "not logged in")
		}
		best, room := o.best()
		if best != nil && room {
			o.mu.Unlock()
			return best, nil
		}
		dialing := o.dialing
		if dialing == nil {
			dialing = make(chan struct{})
			o.dialing = dialing
			// The attempt belongs to everybody who waits, not to the first one.
			o.work.Go(func() { o.dial(context.WithoutCancel(ctx), dialing) })
		}
		o.mu.Unlock()
		if best != nil { // crowded, but there is room while the next one is dialled
			return best, nil
		}
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		o.mu.Lock()
		err := o.failed
		o.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// best is the least crowded usable connection; room says that it is not crowded
// at all. Dead ones are forgotten. o.mu is held.
func (o *Outer) best() (best *link, room bool) {
	o.links = slices.DeleteFunc(o.links, func(l *link) bool {
		select {
		case <-l.Done():
			return true
		default:
			return false
		}
	})
	for _, l := range o.links {
		if l.Usable() && (best == nil || l.Streams() < best.Streams()) {
			best = l
		}
	}
	return best, best != nil && best.Streams() < crowded
}

// dial makes one attempt and tells those who wait.
func (o *Outer) dial(ctx context.Context, done chan struct{}) {
	l, err := o.attempt(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(done)
	o.dialing, o.failed = nil, err
	switch {
	case err != nil:
	case o.closed:
		l.Close()
	default:
		o.links = append(o.links, l)
		o.nudge()
	}
}

func (o *Outer) attempt(ctx context.Context) (l *link, err error) {
	defer func() {
		if v := recover(); v != nil { // the agent has other sessions, and those who wait must be told
			o.cfg.Log.Error("panic", "in", "dial", "value", fault.Panic(v))
			l, err = nil, fault.New(fault.ExitFailed, "try again", "internal error")
		}
	}()
	ctx, cancel := o.limit(ctx, dialTimeout+handshakeLimit)
	defer cancel()
	raw, err := o.cfg.Dial(ctx, "tcp", o.cfg.Address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, o.cfg.TLS())
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, o.explain(trust.Explain(err, o.cfg.ServerName))
	}
	client, err := h2conn.NewClient(conn, h2conn.Options{UserAgent: o.cfg.UserAgent})
	if err != nil {
		return nil, fault.New(fault.ExitUnreachable, "check HTTPS_PROXY and NO_PROXY", "the edge at %s does not speak HTTP/2: %v", o.cfg.Address, err)
	}
	l = &link{Client: client, heard: time.Now()}
	// In TLS 1.3 a refused client certificate shows only at the first read: a
	// connection counts once it has answered.
	if err := l.Ping(ctx); err != nil {
		l.Close()
		return nil, o.explain(err)
	}
	return l, nil
}

// limit ends the returned context after d and when o is closed.
func (o *Outer) limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	o.work.Go(func() {
		select {
		case <-o.stopped:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

// explain gives a handshake's error to a person.
func (o *Outer) explain(err error) error {
	addr := o.cfg.Address
	var f *fault.Fault
	if errors.As(err, &f) {
		return f
	}
	var unknown *trust.UnknownAuthorityError
	var clock *trust.ClockError
	switch {
	case errors.As(err, &unknown):
		return fault.New(fault.ExitUntrusted, "if its administrator confirms it: "+o.cfg.Trust, "the gateway's tunnel at %s shows another authority than the profile knows: sha256=%s", addr, unknown.Fingerprint)
	case errors.As(err, &clock):
		return fault.New(fault.ExitFailed, "check the clock of this computer", "%v", clock)
	case alerted(err, "expired certificate"):
		if o.cfg.Expired != nil {
			o.cfg.Expired()
		}
		return fault.New(fault.ExitUnreachable, "try again", "this session's certificate has expired and is being renewed")
	case alerted(err, refusals...):
		return fault.New(fault.ExitLogin, "kubectl zt login", "the gateway refuses this session's certificate").Because(wire.ReasonSessionEnded)
	case errors.Is(err, context.Canceled):
		return err
	default:
		return fault.New(fault.ExitUnreachable, "try again", "no secure connection to the gateway at %s: %v", addr, err)
	}
}

// refusals are the alerts that mean our certificate (RFC 8446, 6.2); any other is
// the edge's trouble and not the session's.
var refusals = []string{
	"bad certificate", "unsupported certificate", "revoked certificate", "unknown certificate", "certificate required", "access denied",
}

// alerted reports whether the edge ended the handshake with one of these alerts.
// crypto/tls gives alerts no exported type but on QUIC.
func alerted(err error, alerts ...string) bool {
	_, alert, ok := strings.Cut(err.Error(), "remote error: tls: ")
	if !ok {
		return false
	}
	return slices.ContainsFunc(alerts, func(a string) bool { return strings.HasPrefix(alert, a) })
}

// doubt pings a connection that was silent for long; it does not block.
func (o *Outer) doubt(ctx context.Context, l *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(l.heard) > silence && !o.closed {
		l.heard = time.Now() // one probe at a time
		o.work.Go(func() { o.probe(context.WithoutCancel(ctx), l) })
	}
}

// probe closes a connection that does not answer. Its streams fail at once and
// their clients come back over a new one.
func (o *Outer) probe(ctx context.Context, l *link) {
	ctx, cancel := o.limit(ctx, probeLimit)
	defer cancel()
	if err := l.Ping(ctx); err != nil {
		o.cfg.Log.Info("connection to the edge is dead, dialling again")
		l.Close()
		o.nudge()
		return
	}
	o.mu.Lock()
	l.heard = time.Now()
	o.mu.Unlock()
}

// Probe looks at all connections, after sleep or a change of the network, and
// returns when it is known which of them live.
func (o *Outer) Probe(ctx context.Context) {
	o.mu.Lock()
	links := slices.Clone(o.links)
	o.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range links {
		wg.Go(func() { o.probe(ctx, l) })
	}
	wg.Wait()
}

// Links is how many connections stand and how many streams are on them.
func (o *Outer) Links() (links, streams int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.links {
		if n := l.Streams(); n > 0 || l.Usable() {
			links++
			streams += n
		}
	}
	return links, streams
}

func (o *Outer) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close takes no new streams, ends all that run, after a moment, and waits for
// what Outer has started.
func (o *Outer) close() {
	o.mu.Lock()
	if !o.closed {
		o.closed = true
		close(o.stopped)
	}
	links := o.links
	o.links = nil
	o.mu.Unlock()
	late := time.NewTimer(farewell)
	defer late.Stop()
	for _, l := range links {
		l.Retire()
	}
	for _, l := range links {
		select {
		case <-l.Done():
		case <-late.C:
			late.Reset(0)
		}
		l.Close()
	}
	o.work.Wait()
}
