//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/kube-zt/zt/pkg/client/execcred"
	"github.com/kube-zt/zt/pkg/client/fault"
)

const (
	// spawnLimit is for a new agent to say that it listens.
	spawnLimit = 10 * time.Second
	// readyFD is the descriptor on which it says so.
	readyFD = 3
)

// spawn starts an agent. Of twenty commands that find none, one starts it and the
// others find it under the lock.
func (c *Client) spawn(ctx context.Context) (io.ReadWriteCloser, error) {
	if err := c.Home.Prepare(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, spawnLimit)
	defer cancel()
	lock := flock.New(c.Home.Spawn(), flock.SetPermissions(0o600))
	if ok, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil || !ok {
		return nil, fault.New(fault.ExitFailed, "kubectl zt agent --stop", "another command has been starting the agent for %s", spawnLimit)
	}
	defer lock.Close()
	if conn, err := c.dial(); err == nil {
		return conn, nil
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	conn, err := c.dial()
	if err != nil {
		return nil, fault.New(fault.ExitFailed, "look at "+c.Home.Log(), "the agent started and does not answer: %v", err)
	}
	return conn, nil
}

// start runs the agent detached and waits until it listens.
func (c *Client) start(ctx context.Context) error {
	log, err := openLog(c.Home.Log())
	if err != nil {
		return err
	}
	defer log.Close()
	ready, tell, err := os.Pipe()
	if err != nil {
		return fault.New(fault.ExitFailed, "", "start the agent: %v", err)
	}
	defer ready.Close()
	cmd := exec.Command(c.Binary, "agent", "--spawned") //nolint:noctx // it outlives us
	cmd.Dir = "/"
	cmd.Env = agentEnviron()
	cmd.Stderr = log // for the last words of a crash; stdin and stdout are /dev/null
	cmd.ExtraFiles = []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return fault.New(fault.ExitFailed, "", "start the agent: %v", err)
	}
	// Not waited for: it is nobody's child soon. Releasing it spares a thread.
	defer func() { _ = cmd.Process.Release() }()
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(ready, 64<<10))
	switch {
	case ctx.Err() != nil:
		return fault.New(fault.ExitFailed, "look at "+c.Home.Log(), "the agent did not start within %s", spawnLimit)
	case err == nil && string(said) == "ok":
		return nil
	}
	f := new(fault.Fault)
	if json.Unmarshal(said, f) == nil && f.What != "" {
		return f
	}
	return fault.New(fault.ExitFailed, "look at "+c.Home.Log(), "the agent ended while it started")
}

// agentEnviron leaves out what belongs to one call.
func agentEnviron() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, execcred.EnvInfo+"=") {
			env = append(env, kv)
		}
	}
	return env
}

// Ready tells the command that spawned us how the start went; err nil means that
// we listen.
func Ready(err error) {
	f := os.NewFile(readyFD, "ready")
	if f == nil {
		return
	}
	defer f.Close()
	if err == nil {
		_, _ = f.WriteString("ok")
		return
	}
	if data, merr := json.Marshal(fault.Of(err)); merr == nil {
		_, _ = f.Write(data)
	}
}

// maxLog is where the log begins anew, in bytes.
const maxLog = 1 << 20

// openLog opens the agent's log for appending, the user's alone.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.New(fault.ExitUntrusted, "remove it", "the agent's log %s cannot be opened: %v", path, err)
	}
	if fi, err := f.Stat(); err == nil && fi.Size() > maxLog {
		_ = f.Truncate(0)
	}
	return f, nil
}

// rawConn is a connected socket without a poller.
type rawConn int

// dialBlocking is net.Dial for a process that has nothing else to do. The kernel
// ends a call that takes longer than limit (socket(7), SO_RCVTIMEO; it holds for
// connect, too, whose queue a stopped agent lets fill).
func dialBlocking(path string, limit time.Duration) (io.ReadWriteCloser, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	syscall.CloseOnExec(fd)
	tv := syscall.NsecToTimeval(int64(limit))
	for _, opt := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, opt, &tv); err != nil {
			return nil, errors.Join(os.NewSyscallError("setsockopt", err), syscall.Close(fd))
		}
	}
	for {
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("connect", err), syscall.Close(fd))
	}
	return rawConn(fd), nil
}

func (c rawConn) Read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(c), b)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (c rawConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := syscall.Write(int(c), b[done:])
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return done, err
		}
		done += max(n, 0)
	}
	return done, nil
}

func (c rawConn) Close() error { return syscall.Close(int(c)) }

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
