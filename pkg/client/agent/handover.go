//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

// handoverLimit is for the new agent to say that it has taken over.
const handoverLimit = 5 * time.Second

// Descriptors that an heir finds: the state to read, the pipe to answer on, and
// then what the state lists.
const (
	stateFD  = 3
	answerFD = 4
	firstFD  = 5
)

// Inheritance is what one agent leaves to the next. It is full of secrets and
// travels by pipe only.
type Inheritance struct {
	Lock, Socket int             // descriptors
	Local        profile.Local   // port and secrets of the kubeconfigs
	Ports        []inheritedPort // the first with Main is that of the kubeconfigs
	Sessions     map[profile.Name]*session.State
	Environment  tunnel.Environment
}

type inheritedPort struct {
	FD    int
	Main  bool
	Open  profile.Name
	Owner profile.Name
}

// Inherit reads what the old agent wrote; the heir calls it before anything else.
func Inherit() (*Inheritance, error) {
	f := os.NewFile(stateFD, "state")
	if f == nil {
		return nil, errors.New("inherit: no state")
	}
	defer f.Close()
	in := new(Inheritance)
	if err := json.NewDecoder(io.LimitReader(f, 64<<20)).Decode(in); err != nil {
		return nil, fmt.Errorf("inherit: %w", err)
	}
	return in, nil
}

// Inherited tells the old agent that it may go; err nil means that all was taken.
func Inherited(err error) {
	f := os.NewFile(answerFD, "answer")
	if f == nil {
		return
	}
	defer f.Close()
	text := "ok"
	if err != nil {
		text = fault.Of(err).What
	}
	_, _ = f.WriteString(text)
}

// giveWay lets the newer binary take over, if the agent is idle. Where that fails
// the old agent goes on as if nothing had been tried.
func (a *Agent) giveWay(ctx context.Context, binary string) {
	if !filepath.IsAbs(binary) {
		return
	}
	a.mu.Lock()
	if a.leaving != nil || a.left || a.talking > 0 {
		a.mu.Unlock()
		return
	}
	a.leaving = make(chan struct{}) // from here on requests wait for the outcome
	a.mu.Unlock()
	tried := a.logins.idle() && a.proxy.Idle()
	var err error
	if tried {
		err = a.handOver(ctx, binary)
	}
	a.mu.Lock()
	a.left = tried && err == nil
	close(a.leaving)
	a.leaving = nil
	a.mu.Unlock()
	switch {
	case err != nil:
		a.log.Warn("a newer agent did not take over", "error", fault.Escape(err.Error()))
	case tried:
		a.log.Info("a newer agent has taken over")
		a.Stop()
	}
}

// settled waits while a newer agent may be taking over; false means that it has.
func (a *Agent) settled(ctx context.Context) bool {
	a.mu.Lock()
	undecided := a.leaving
	a.mu.Unlock()
	if undecided != nil {
		select {
		case <-undecided:
		case <-ctx.Done():
			return false
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.left
}

// freeze stills all sessions: a refresh token that is spent after it was written
// down for the heir is worth nothing to one of the two, and its second use may
// make the issuer end the login.
func (a *Agent) freeze() (thaw func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var thaws []func()
	thaw = func() {
		for _, f := range thaws {
			f()
		}
	}
	for n, r := range a.sessions {
		f, ok := r.Freeze()
		if !ok {
			thaw()
			return nil, fmt.Errorf("the session of %s is being renewed", n)
		}
		thaws = append(thaws, f)
	}
	return thaw, nil
}

// handOver returns nil when the heir has everything; the sessions here stay frozen
// then until they end.
func (a *Agent) handOver(ctx context.Context, binary string) (err error) {
	thaw, err := a.freeze()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			thaw()
		}
	}()
	in, files, err := a.bequeath()
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return err
	}
	stateR, stateW, err := os.Pipe()
	if err != nil {
		return err
	}
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, stateR.Close(), stateW.Close())
	}
	defer answerR.Close()
	cmd := exec.Command(binary, "agent", "--inherit") //nolint:noctx // it outlives us
	cmd.Dir, cmd.Env = "/", os.Environ()
	if log, err := openLog(a.cfg.Home.Log()); err == nil {
		defer log.Close()
		cmd.Stderr = log
	}
	cmd.ExtraFiles = append([]*os.File{stateR, answerW}, files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	stateR.Close()
	answerW.Close()
	if err != nil {
		return errors.Join(err, stateW.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, handoverLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = stateW.Close(); _ = answerR.Close() })
	defer stop()
	err = json.NewEncoder(stateW).Encode(in)
	err = errors.Join(err, stateW.Close())
	if err == nil {
		var said []byte
		if said, err = io.ReadAll(io.LimitReader(answerR, 4<<10)); err == nil && string(said) != "ok" {
			err = fmt.Errorf("it said %q", said)
		}
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		return err
	}
	_ = cmd.Process.Release() // it is nobody's child soon
	return nil
}

// bequeath collects what there is. The files are copies, to be closed.
func (a *Agent) bequeath() (*Inheritance, []*os.File, error) {
	in := &Inheritance{Sessions: map[profile.Name]*session.State{}, Environment: *a.env.Load()}
	var files []*os.File
	add := func(f *os.File, err error) (int, error) {
		if err != nil {
			return 0, err
		}
		files = append(files, f)
		return firstFD + len(files) - 1, nil
	}
	var errs []error
	var err error
	in.Lock, err = add(duplicate(a.lock))
	errs = append(errs, err)
	in.Socket, err = add(duplicate(a.socket))
	errs = append(errs, err)
	a.ports.mu.Lock()
	in.Local = a.ports.local
	list := a.ports.extra
	if a.ports.main != nil {
		list = append([]*port{a.ports.main}, list...)
	}
	for _, p := range list {
		n, err := add(duplicate(tunnel.TCP(p.l)))
		errs = append(errs, err)
		in.Ports = append(in.Ports, inheritedPort{FD: n, Main: p == a.ports.main, Open: p.open, Owner: p.owner})
	}
	a.ports.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, r := range a.sessions {
		st, err := r.Export()
		errs = append(errs, err)
		if st != nil {
			in.Sessions[n] = st
		}
	}
	return in, files, errors.Join(errs...)
}

// duplicate makes a descriptor for the heir. Not by File: handing its result to a
// child makes the socket blocking, in this process as well, where Accept would
// then hang in the kernel for good.
func duplicate(c syscall.Conn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inherited"), nil
}

// inherit takes over what in lists. Until settled is called, when the old agent
// has been told, the sessions spend nothing: it may still have given us up.
func (a *Agent) inherit(in *Inheritance) (settled func(), err error) {
	a.lock = os.NewFile(uintptr(in.Lock), "lock")
	f := os.NewFile(uintptr(in.Socket), "socket")
	if a.lock == nil || f == nil {
		return nil, errors.New("inherit: descriptors are missing")
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherit socket: %w", err)
	}
	socket, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.New("inherit: not a socket")
	}
	socket.SetUnlinkOnClose(false)
	a.socket = socket
	if a.socketFile, err = os.Lstat(a.cfg.Home.Socket()); err != nil {
		return nil, fmt.Errorf("inherit socket: %w", err)
	}
	a.env.Store(&in.Environment)
	if err := a.ports.inherit(in); err != nil {
		return nil, err
	}
	residents := map[profile.Name]*resident{}
	for n := range in.Sessions {
		if residents[n], err = a.session(n); err != nil {
			return nil, err
		}
	}
	if settled, err = a.freeze(); err != nil {
		return nil, err
	}
	for n, st := range in.Sessions {
		if err := residents[n].Import(st); err != nil {
			return nil, err
		}
	}
	return settled, nil
}

func (ps *ports) inherit(in *Inheritance) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.local = in.Local
	for _, ip := range in.Ports {
		f := os.NewFile(uintptr(ip.FD), "port")
		if f == nil {
			return errors.New("inherit: a port is missing")
		}
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("inherit port: %w", err)
		}
		p := ps.serve(l, ip.Open, ip.Owner)
		if ip.Main {
			ps.main = p
		} else {
			ps.extra = append(ps.extra, p)
		}
	}
	return nil
}
