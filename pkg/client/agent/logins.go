package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
)

// logins lets at most one login per profile be under way. Whoever needs one while
// it is joins it; when the last of them has gone, it is called off.
type logins struct {
	start func(func(context.Context)) // runs a function under the agent's life

	mu      sync.Mutex
	pending map[profile.Name]*pending
}

// pending is one login under way and those who wait for it.
type pending struct {
	done chan struct{} // closed when err is set
	err  error
	stop chan struct{} // closed to call it off

	mu        sync.Mutex
	followers []*conversation
	shown     []byte // notices so far, for who joins late
	stopped   bool
}

// terms are what a login that nobody asked for by name is begun on. Both are
// called at most once, and only for the caller who begins it.
type terms struct {
	// allow says why there shall be none. It is asked under the lock: of many
	// callers one is asked, and the others find that one's login.
	allow func() error
	// ended hears how the login itself went, before anybody who waits for it does.
	// Whoever began it may have left by then, and others have stayed.
	ended func(error)
}

// join waits for the profile's login on behalf of c. If none is under way it
// begins one, on the terms, which are nil for one that was asked for by name.
func (ls *logins) join(ctx context.Context, s *session.Session, c *conversation, deviceCode session.DeviceCode, on *terms) error {
	p, err := ls.enter(s, c, deviceCode, on)
	if err != nil {
		return err
	}
	defer p.leave(c)
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (ls *logins) idle() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return len(ls.pending) == 0
}

func (ls *logins) enter(s *session.Session, c *conversation, deviceCode session.DeviceCode, on *terms) (*pending, error) {
	name := s.Profile().Name
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if p := ls.pending[name]; p != nil && p.follow(c) {
		return p, nil
	}
	if on != nil {
		if err := on.allow(); err != nil {
			return nil, err
		}
	}
	p := &pending{done: make(chan struct{}), stop: make(chan struct{}), followers: []*conversation{c}}
	ls.pending[name] = p
	ls.start(func(ctx context.Context) {
		err := p.run(ctx, s, c.req.QR, deviceCode)
		if on != nil {
			on.ended(err)
		}
		ls.mu.Lock()
		if ls.pending[name] == p {
			delete(ls.pending, name)
		}
		ls.mu.Unlock()
		p.err = err
		close(p.done)
	})
	return p, nil
}

// run is the login itself.
func (p *pending) run(ctx context.Context, s *session.Session, qr bool, deviceCode session.DeviceCode) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fault.New(fault.ExitFailed, "try again", "internal error in the login (%s)", fault.Panic(v))
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	defer close(watched)
	go func() {
		select {
		case <-p.stop:
			cancel()
		case <-watched:
		}
	}()
	return s.Login(ctx, session.Prompt{
		Open: p.open, Out: p, QR: qr, DeviceCode: deviceCode,
		Progress: func(text string) { p.each(func(c *conversation) { c.progress(text) }) },
		Warn:     func(text string) { _, _ = p.Write([]byte("zt: " + fault.Escape(text) + "\n")) },
	})
}

// Write shows what the person must read to everybody who waits, and later to
// everybody who joins. It implements io.Writer for the login.
func (p *pending) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.shown = append(p.shown, b...)
	p.mu.Unlock()
	p.each(func(c *conversation) { c.send(frameNotice, b) })
	return len(b), nil
}

// open shows the page once, on behalf of the first who can.
func (p *pending) open(ctx context.Context, url string) error {
	err := errors.New("there is no browser here")
	tried := map[*conversation]bool{}
	for {
		p.mu.Lock()
		i := slices.IndexFunc(p.followers, func(c *conversation) bool { return c.req.Display && !tried[c] })
		var c *conversation
		if i >= 0 {
			c = p.followers[i]
		}
		p.mu.Unlock()
		if c == nil {
			return err
		}
		tried[c] = true
		if err = c.open(ctx, url); err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func (p *pending) each(f func(*conversation)) {
	p.mu.Lock()
	followers := slices.Clone(p.followers)
	p.mu.Unlock()
	for _, c := range followers {
		f(c)
	}
}

// follow adds c, unless the login is being called off.
func (p *pending) follow(c *conversation) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	p.followers = append(p.followers, c)
	if len(p.shown) > 0 {
		shown := slices.Clone(p.shown)
		go c.send(frameNotice, shown) // bounded by writeLimit
	}
	return true
}

func (p *pending) leave(c *conversation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.followers = slices.DeleteFunc(p.followers, func(o *conversation) bool { return o == c })
	if len(p.followers) == 0 && !p.stopped {
		p.stopped = true
		close(p.stop)
	}
}

// budget bounds logins that nobody asked for by name (FEATURES N4, B15): a kubectl
// that is polled by an IDE must not open a page every two seconds.
type budget struct {
	now func() time.Time

	mu sync.Mutex
	// failed holds, per issuer, why the last automatic login came to nothing. It
	// is forgotten at the next login that succeeds or is asked for by name.
	failed map[string]failure
	// begun holds when a parent process last began one, by issuer and process.
	begun map[string]time.Time
}

type failure struct {
	at  time.Time
	why string
}

// again is how long one parent process waits between two automatic logins, also
// when they succeed: a session that is refused at once would go round in circles.
const again = 10 * time.Minute

// take allows an automatic login or says why there is none.
func (b *budget) take(issuer, parent string) *fault.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := b.failed[issuer]; ok {
		return fault.New(fault.ExitLogin, "kubectl zt login", "not logged in; the login at %s came to nothing: %s", f.at.Format("15:04"), f.why)
	}
	key := issuer + " " + parent
	if at, ok := b.begun[key]; ok && b.now().Sub(at) < again {
		return fault.New(fault.ExitLogin, "kubectl zt login", "not logged in; this program has opened a login at %s already", at.Format("15:04"))
	}
	for k, at := range b.begun {
		if b.now().Sub(at) >= again {
			delete(b.begun, k)
		}
	}
	b.begun[key] = b.now()
	return nil
}

// spend notes how an automatic login ended.
func (b *budget) spend(issuer string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.failed, issuer)
		return
	}
	b.failed[issuer] = failure{b.now(), fault.Of(err).What}
}

// restore is for a login that the person asked for by name.
func (b *budget) restore(issuer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, issuer)
	clear(b.begun)
}

// told remembers what each parent process was told, so that a plugin that
// client-go runs five times says it once.
type told struct {
	now func() time.Time
	mu  sync.Mutex
	m   map[string]time.Time
}

// forget is when the same text is news again for the same process.
const forget = time.Minute

func (t *told) mark(parent string, f *fault.Fault) *fault.Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for k, at := range t.m {
		if now.Sub(at) >= forget {
			delete(t.m, k)
		}
	}
	key := parent + " " + f.What
	_, known := t.m[key]
	t.m[key] = now
	marked := *f
	marked.Told = known
	return &marked
}
