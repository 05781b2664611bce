package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/kube-zt/zt/pkg/client/device"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Session is one profile's, logged in or not. It is safe for concurrent use; it
// lives in Run.
type Session struct {
	deps    Deps
	key     *device.Key
	clock   *clock
	gw      *gateway
	profile atomic.Pointer[profile.Profile]
	saving  sync.Mutex    // of the profile
	epoch   atomic.Uint64 // see tunnel.Target

	flights singleflight.Group
	closing chan struct{} // closed when Run ends

	mu      sync.Mutex
	closed  bool           // no flight may start any more
	work    sync.WaitGroup // flights; added to with mu held
	flying  int            // how many they are
	frozen  chan struct{}  // closed when flights go on, see Freeze; nil while they do
	live    *live
	over    *fault.Fault  // why the last one ended, if somebody else ended it
	changed chan struct{} // closed and made anew whenever live changes
}

// notYet is what there is to say of control before its first word.
const notYet = "the gateway has not answered yet"

// live is the time between a login and its end.
type live struct {
	identity  atomic.Pointer[identity]
	outer     *tunnel.Outer
	control   *control
	catalogue *catalogue
	tokens    *tokens
	idp       *idp
	heard     atomic.Pointer[string] // why control is not heard of; nil when it is
	leaving   atomic.Bool            // the person is logging out: the end is no news

	// rejected is the identity that the edge, by its clock, holds for expired;
	// hurry, of capacity 1, has it renewed now.
	rejected atomic.Pointer[identity]
	hurry    chan struct{}
}

// expired is what the edge has said of the certificate.
func (l *live) expired() {
	l.rejected.Store(l.identity.Load())
	select {
	case l.hurry <- struct{}{}:
	default:
	}
}

// accepted reports whether the edge has not turned the certificate of the moment
// away.
func (l *live) accepted() bool { return l.rejected.Load() != l.identity.Load() }

// New makes a Session that is not logged in, and the device key with it. It opens
// no connection.
func New(d Deps, p *profile.Profile) (*Session, error) {
	key, err := device.Open(d.Home, p.Name)
	if err != nil {
		return nil, err
	}
	s := &Session{
		deps: d, key: key, clock: &clock{now: d.Now},
		closing: make(chan struct{}), changed: make(chan struct{}),
	}
	s.profile.Store(p)
	s.gw = newGateway(d, s.clock, p.Address(), p.ServerName(), p.Pin)
	return s, nil
}

// Run keeps the session alive, once there is one, until ctx ends. It must be
// called once.
func (s *Session) Run(ctx context.Context) error {
	defer s.gw.close()
	defer s.land()
	for {
		l, changed := s.current()
		if l == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		s.keep(ctx, l, changed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// keep runs what a live session needs until it changes or ctx ends.
func (s *Session) keep(ctx context.Context, l *live, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	for _, part := range []func(context.Context){
		func(ctx context.Context) { _ = l.outer.Run(ctx) },
		func(ctx context.Context) { s.follow(ctx, l) },
		func(ctx context.Context) { s.keepRenewed(ctx, l) },
	} {
		parts.Go(func() { s.guarded(ctx, l, part) })
	}
	select {
	case <-ctx.Done():
	case <-changed:
	}
	cancel()
	l.control.close()
	parts.Wait()
}

// guarded runs one part of a session's life. A panic in it ends this session and
// none of its neighbours.
func (s *Session) guarded(ctx context.Context, l *live, part func(context.Context)) {
	defer func() {
		if v := recover(); v != nil {
			s.deps.Log.Error("panic", "in", "session", "value", fault.Panic(v))
			s.end(l, fault.New(fault.ExitLogin, "kubectl zt login", "the session was given up after an internal error").Because(wire.ReasonSessionEnded))
		}
	}()
	part(ctx)
}

func (s *Session) current() (*live, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live, s.changed
}

// replace puts l in the place of old; nil ends the session, with its reason. It
// reports whether old was still the one.
func (s *Session) replace(old, l *live, over *fault.Fault) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != old {
		return false
	}
	s.live, s.over = l, over
	s.epoch.Add(1)
	close(s.changed)
	s.changed = make(chan struct{})
	return true
}

// begin makes the live part around a first certificate.
func (s *Session) begin(id *identity, provider *idp) (*live, error) {
	p := s.profile.Load()
	ca, err := trust.ParseCertificates([]byte(p.GatewayCA))
	if err != nil {
		return nil, fmt.Errorf("gateway's authority: %w", err)
	}
	l := &live{catalogue: newCatalogue(), tokens: newTokens(), idp: provider, hurry: make(chan struct{}, 1)}
	l.identity.Store(id)
	silent := notYet
	l.heard.Store(&silent)
	l.outer = tunnel.NewOuter(tunnel.OuterConfig{
		Address: p.Address(), ServerName: p.TunnelName(), Dial: s.deps.Dial,
		TLS:       s.tunnelTLS(l, p, ca),
		UserAgent: s.deps.userAgent(), Log: s.deps.Log, Now: s.deps.Now, Expired: l.expired, Trust: trustCommand(p),
	})
	l.control = newControl(s.deps, s.clock, l.outer, poolOf(ca...), p.TrustDomain, s.proofOf(l))
	return l, nil
}

// proofOf signs for streams of l with whatever certificate is the latest.
func (s *Session) proofOf(l *live) tunnel.Proof {
	return func(audience string, hello []byte) (string, error) {
		return l.identity.Load().sign(audience, hello, s.clock.Now())
	}
}

// notLoggedIn is what everybody hears who needs a session and has none.
func (s *Session) notLoggedIn() *fault.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return s.over
	}
	return fault.New(fault.ExitLogin, "kubectl zt login", "not logged in at %s", s.profile.Load().Domain).Because(wire.ReasonLoginRequired)
}

// ready returns the live session with a certificate that can be presented, and
// renews an expired one. What the machine slept over was looked at then. The error
// is a Fault with ExitLogin when only a login helps.
func (s *Session) ready(ctx context.Context) (*live, error) {
	l, _ := s.current()
	if l == nil {
		return nil, s.notLoggedIn()
	}
	l.outer.Rouse(ctx)
	if l.identity.Load().lasts(s.clock.Now()) && l.accepted() {
		return l, nil
	}
	err := s.renew(ctx, l)
	if now, _ := s.current(); err != nil && (now != l || !s.presentable(l)) {
		return nil, err
	}
	return l, nil
}

func (s *Session) presentable(l *live) bool {
	return l.identity.Load().valid(s.clock.Now()) && l.accepted()
}

// end gives up the session because somebody else has ended it. A login is advised,
// and with ExitLogin perhaps begun, only where it may help: whom an administrator
// has locked out it would only show the same refusal.
func (s *Session) end(l *live, why *fault.Fault) {
	if l.leaving.Load() {
		return // Logout ends it, once it has heard the answer
	}
	switch why.Reason {
	case wire.ReasonSessionEnded, wire.ReasonLoginRequired:
		why.Exit = fault.ExitLogin
		why = why.Hint("kubectl zt login")
	default:
		why.Exit = fault.ExitRefused
	}
	if s.replace(l, nil, why) {
		s.deps.Log.Info("session ended", "why", why.What)
		l.idp.close()
	}
}

// ended reports whether err says that the session is over for good: control's
// refusal, or the edge's of our certificate.
func ended(err error) (*fault.Fault, bool) {
	var r *wire.Refusal
	var f *fault.Fault
	if !errors.As(err, &r) && !errors.As(err, &f) {
		return nil, false
	}
	f = fault.Of(err)
	switch f.Reason {
	case wire.ReasonSessionEnded, wire.ReasonRevoked, wire.ReasonLoginRequired:
		again := *f
		return &again, true
	}
	return nil, false
}

// flight runs fn once for all callers with the same key and lets it finish when
// the first caller gives up: the others still wait, and a refresh that was sent
// must be heard to its end.
func (s *Session) flight(ctx context.Context, key string, limit time.Duration, fn func(context.Context) (any, error)) (any, error) {
	done := s.flights.DoChan(key, func() (v any, err error) {
		if !s.start() {
			return nil, context.Canceled
		}
		defer s.finish()
		defer func() {
			if p := recover(); p != nil { // singleflight would end the process
				s.deps.Log.Error("panic", "in", key, "value", fault.Panic(p))
				err = fault.New(fault.ExitFailed, "try again", "internal error")
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-s.closing:
				cancel()
			case <-stop:
			}
		}()
		return fn(ctx)
	})
	select {
	case r := <-done:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// land ends all flights and waits for them.
func (s *Session) land() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	s.work.Wait()
}

// Profile is the profile of the moment; it must not be changed.
func (s *Session) Profile() *profile.Profile { return s.profile.Load() }

// DeviceID names this laptop's key.
func (s *Session) DeviceID() wire.DeviceID { return s.key.ID }
