package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

const (
	// defaultIdle is how long an agent stays that has nothing to keep.
	defaultIdle = 15 * time.Minute
	// lookAround is how often the agent asks itself whether it is still wanted.
	lookAround = 5 * time.Second
	// maxConversations bounds clients at a time, each with a goroutine or two.
	maxConversations = 512
)

// Config of an Agent.
type Config struct {
	Home    profile.Home
	Version string
	Binary  string
	// Log takes the agent's log; Debug makes it verbose.
	Log   io.Writer
	Debug bool
	// Now is this machine's clock; nil means time.Now.
	Now func() time.Time
	// Environment says how to get out to the network.
	Environment tunnel.Environment
	// Idle is how long an agent stays that has nothing to keep; 0 means 15 min.
	Idle time.Duration
	// Deps may be changed by tests.
	Deps func(*session.Deps)
}

// Agent is the process behind the socket.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	fan     *fanout
	started time.Time
	env     atomic.Pointer[tunnel.Environment]
	proxy   *tunnel.Proxy
	ports   *ports
	logins  *logins
	budget  *budget
	told    *told

	starts   chan func(context.Context) // run by Run, which waits for them
	finished chan struct{}              // closed when Run takes no more
	quit     chan struct{}
	quitOnce sync.Once

	lock       *os.File
	socket     *net.UnixListener
	socketFile os.FileInfo

	mu       sync.Mutex
	sessions map[profile.Name]*resident
	talking  int       // conversations
	used     time.Time // when something was last going on
	// leaving is open while a newer agent may be taking over, and nil otherwise;
	// left says that one has, and that the socket is no longer ours to remove.
	leaving chan struct{}
	left    bool

	// ownersKnown is tunnel.OwnersKnown, but in tests.
	ownersKnown bool
}

// ErrRunning says that another agent has the lock.
var ErrRunning = errors.New("an agent is running already")

// New makes an Agent; nothing is opened.
func New(cfg Config) *Agent {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	a := &Agent{
		cfg: cfg, started: cfg.Now(), used: cfg.Now(), sessions: map[profile.Name]*resident{},
		ownersKnown: tunnel.OwnersKnown, starts: make(chan func(context.Context)), finished: make(chan struct{}), quit: make(chan struct{}),
	}
	a.log, a.fan = newLog(cfg.Log, cfg.Debug)
	a.env.Store(&tunnel.Environment{})
	a.proxy = &tunnel.Proxy{Log: a.log, Routes: a.route, Address: func(name string, f *fault.Fault) *fault.Fault {
		return a.addressed(profile.Name(name), f)
	}}
	a.ports = &ports{home: cfg.Home, proxy: a.proxy, start: a.run}
	a.logins = &logins{start: a.run, pending: map[profile.Name]*pending{}}
	a.budget = &budget{now: cfg.Now, failed: map[string]failure{}, begun: map[string]time.Time{}}
	a.told = &told{now: cfg.Now, m: map[string]time.Time{}}
	return a
}

// run hands a function to Run, under whose life it goes on. At the very end,
// when nobody is left who could care, it is dropped.
func (a *Agent) run(f func(context.Context)) {
	select {
	case a.starts <- f:
	case <-a.finished:
	}
}

// Run is the agent's life: it ends with ctx, with Stop, by idleness, or when a
// newer agent has taken over. ready is called once, when it listens.
func (a *Agent) Run(ctx context.Context, in *Inheritance, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(a.finished)
	var all sync.WaitGroup
	loop := make(chan error, 1)
	all.Go(func() { loop <- a.live(ctx, in, ready) })
	for {
		select {
		case f := <-a.starts:
			all.Go(func() { f(ctx) })
			continue
		case err := <-loop:
			cancel()
			// Whoever is started from now on finds a context that has ended.
			gone := make(chan struct{})
			go func() {
				all.Wait()
				close(gone)
			}()
			for {
				select {
				case f := <-a.starts:
					f(ctx)
				case <-gone:
					return err
				}
			}
		}
	}
}

func (a *Agent) live(ctx context.Context, in *Inheritance, ready func()) error {
	settled, err := a.open(ctx, in)
	if err != nil {
		return err
	}
	defer a.shut()
	a.log.Info("agent started", "version", a.cfg.Version, "pid", os.Getpid())
	ready()
	settled()
	accepting := make(chan error, 1)
	a.run(func(ctx context.Context) { accepting <- a.accept(ctx) })
	ticker := time.NewTicker(min(a.cfg.Idle/4, lookAround))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.quit:
			return nil
		case err := <-accepting:
			return err
		case <-ticker.C:
			if a.idle() && a.unused() > a.cfg.Idle {
				a.log.Info("nothing to keep, leaving")
				return nil
			}
			if !a.reachable() {
				a.log.Info("the socket has gone, leaving")
				return nil
			}
		}
	}
}

// open takes lock, socket and port: inherited, or made. settled is to be called
// when that is known to whoever waits for it.
func (a *Agent) open(ctx context.Context, in *Inheritance) (settled func(), err error) {
	if in != nil {
		return a.inherit(in)
	}
	return func() {}, a.make(ctx)
}

func (a *Agent) make(ctx context.Context) error {
	if err := a.cfg.Home.Prepare(); err != nil {
		return err
	}
	lock, err := takeLock(a.cfg.Home.Lock())
	if err != nil {
		return err
	}
	a.lock = lock
	// Under the lock a socket that is there belongs to nobody.
	if err := os.Remove(a.cfg.Home.Socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.ExitFailed, "remove it", "%s is in the way: %v", a.cfg.Home.Socket(), err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.cfg.Home.Socket(), Net: "unix"})
	if err != nil {
		return fault.New(fault.ExitFailed, "set ZT_HOME to another directory", "the agent cannot listen at %s: %v", a.cfg.Home.Socket(), err)
	}
	l.SetUnlinkOnClose(false) // shut does, unless somebody else has taken over
	if err := os.Chmod(a.cfg.Home.Socket(), 0o600); err != nil {
		l.Close()
		return fmt.Errorf("close the socket to others: %w", err)
	}
	a.socket = l
	if a.socketFile, err = os.Lstat(a.cfg.Home.Socket()); err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if err := a.ports.restore(ctx); err != nil {
		return err
	}
	a.heed(a.cfg.Environment)
	return nil
}

func (a *Agent) shut() {
	a.mu.Lock()
	left := a.left
	a.mu.Unlock()
	if !left && a.reachable() {
		_ = os.Remove(a.cfg.Home.Socket())
	}
	a.socket.Close()
	a.ports.shut() // before the lock: the next agent wants the same port
	a.lock.Close() // releases the lock, unless its heir holds it, too
	a.log.Info("agent ended")
}

// takeLock holds for the life of the process and of those that inherit it.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fault.New(fault.ExitUntrusted, "remove it", "the agent's lock %s cannot be opened: %v", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrRunning
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

func (a *Agent) accept(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { a.socket.Close() })
	defer stop()
	var talks sync.WaitGroup
	defer talks.Wait()
	slots := make(chan struct{}, maxConversations)
	for {
		conn, err := a.socket.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			a.log.Warn("accept failed", "error", err.Error())
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		slots <- struct{}{}
		a.mu.Lock()
		a.talking++
		a.mu.Unlock()
		talks.Go(func() {
			binary := a.talk(ctx, conn)
			<-slots
			a.mu.Lock()
			a.talking--
			a.used = a.cfg.Now()
			a.mu.Unlock()
			if binary != "" {
				a.giveWay(ctx, binary)
			}
		})
	}
}

// talk serves one client. It returns the path of a newer binary that should take
// over, if the client brought one.
func (a *Agent) talk(ctx context.Context, conn *net.UnixConn) (newer string) {
	defer conn.Close()
	c := &conversation{conn: conn, opened: make(chan string, 1), cleaned: make(chan []string, 1)}
	defer func() {
		if v := recover(); v != nil {
			a.log.Error("panic in a request", "op", string(c.req.Op), "value", fault.Panic(v))
			c.fail(fault.New(fault.ExitFailed, "try again", "internal error of the agent"))
		}
	}()
	if uid, err := peerUID(conn); err != nil || uid != os.Geteuid() {
		a.log.Warn("another user tried the socket", "uid", uid)
		return ""
	}
	if conn.SetReadDeadline(time.Now().Add(helloLimit)) != nil {
		return ""
	}
	kind, payload, err := readFrame(conn)
	if err != nil || kind != frameRequest || json.Unmarshal(payload, &c.req) != nil {
		return ""
	}
	if conn.SetReadDeadline(time.Time{}) != nil {
		return ""
	}
	if !a.settled(ctx) {
		return "" // the client asks again, and finds the newer agent
	}
	if c.req.Op == OpStop { // also from a stranger to our protocol, whom the next line sends here
		a.Stop()
		c.result(struct{}{})
		return ""
	}
	if c.req.Protocol != Protocol {
		c.fail(fault.New(fault.ExitFailed, "kubectl zt agent --stop", "this command speaks protocol %d with the agent, which speaks %d (%s)", c.req.Protocol, Protocol, a.cfg.Version))
		return c.req.newer(a.cfg.Version)
	}
	if c.req.Environment != nil {
		a.heed(*c.req.Environment)
	}
	heardAll := func() {}
	if c.req.Verbose {
		heardAll = sync.OnceFunc(a.fan.subscribe(c))
		defer heardAll() // also after a panic
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		c.hear(cancel)
	}()
	stop := c.breathe()
	defer stop()
	v, err := a.perform(ctx, c)
	stop()
	heardAll() // the result is the last that the client reads
	if err != nil {
		c.fail(a.addressed(c.req.Profile, fault.Of(err)))
	} else {
		c.result(v)
	}
	conn.CloseRead()
	<-heard
	return c.req.newer(a.cfg.Version)
}

// newer is the client's binary if it is a later version than ours.
func (r Request) newer(ours string) string {
	if session.Newer(r.Version, ours) {
		return r.Binary
	}
	return ""
}

// Stop lets Run end.
func (a *Agent) Stop() { a.quitOnce.Do(func() { close(a.quit) }) }

// reachable reports whether a command could still find this agent: its home may
// have been deleted, and with it the socket.
func (a *Agent) reachable() bool {
	now, err := os.Lstat(a.cfg.Home.Socket())
	return err == nil && os.SameFile(now, a.socketFile)
}

// idle reports whether the agent could leave or be replaced without anybody
// losing a connection. Sessions are another matter, see unused.
func (a *Agent) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.talking == 0 && a.logins.idle() && a.proxy.Idle()
}

// unused is for how long there has been nothing to keep: no session, no port that
// a person opened.
func (a *Agent) unused() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.sessions {
		if r.LoggedIn() {
			a.used = a.cfg.Now()
		}
	}
	if !a.ports.idle() {
		a.used = a.cfg.Now()
	}
	return a.cfg.Now().Sub(a.used)
}
