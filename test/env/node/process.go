package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// command is what a process is started from.
type command struct {
	args []string
	dir  string
	env  []string
	// terminal makes the process the leader of a session on a pty of size, whose
	// output is all stdout.
	terminal bool
	size     *pty.Winsize
	// input says that the process gets a standard input; else it is empty.
	input bool
	// stdout and stderr may be nil. A failing one loses the rest of its output,
	// it does not block the process.
	stdout, stderr io.Writer
}

// process is a running command. All methods may be used concurrently.
type process struct {
	cmd      *exec.Cmd
	terminal *os.File   // nil without one
	outputs  []*os.File // our ends
	copying  sync.WaitGroup

	mu    sync.Mutex
	stdin io.WriteCloser // nil when there is none, or it was closed
}

// start starts the command, by begin unless it has a terminal.
func (c command) start(begin func(*exec.Cmd) error) (*process, error) {
	p := &process{cmd: exec.Command(c.args[0], c.args[1:]...)}
	p.cmd.Dir, p.cmd.Env = c.dir, c.env
	if c.terminal {
		var err error
		if p.terminal, err = startTerminal(p.cmd, c.size); err != nil {
			return nil, err
		}
		if c.input {
			p.stdin = eotCloser{p.terminal}
		}
		p.copy(c.stdout, p.terminal)
		return p, nil
	}
	var theirs []*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			_ = f.Close()
		}
	}
	defer func() { closeAll(theirs) }()
	if c.input {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, r)
		p.cmd.Stdin, p.stdin = r, w
	}
	// Pipes of our own, not those of exec.Cmd: its Wait would also wait for
	// grandchildren that keep an output open after the process was killed.
	sinks := []io.Writer{c.stdout, c.stderr}
	for _, to := range []*io.Writer{&p.cmd.Stdout, &p.cmd.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(p.outputs)
			return nil, err
		}
		theirs, p.outputs = append(theirs, w), append(p.outputs, r)
		*to = w
	}
	if err := begin(p.cmd); err != nil {
		closeAll(p.outputs)
		_ = p.closeInput()
		return nil, err
	}
	for i, r := range p.outputs {
		p.copy(sinks[i], r)
	}
	return p, nil
}

func (p *process) copy(to io.Writer, from *os.File) {
	p.copying.Go(func() {
		if to != nil {
			_, _ = io.Copy(to, from) // a pty ends with EIO, not EOF
		}
		_, _ = io.Copy(io.Discard, from)
	})
}

// wait waits for the end of the process and of its output, and returns the exit
// code; 128 and the signal's number after a signal, as shells do. It is called
// once.
func (p *process) wait() (int, error) {
	err := p.cmd.Wait()
	p.copying.Wait()
	_ = p.closeInput()
	for _, f := range p.outputs {
		_ = f.Close()
	}
	if p.terminal != nil {
		_ = p.terminal.Close()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for %s: %w", p.cmd.Path, err)
	}
	state := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() {
		return 128 + int(state.Signal()), nil
	}
	return state.ExitStatus(), nil
}

// feed copies r to the process's input; at the end of r it closes the input if
// last is set. What the process does not read is dropped, to the end of r: unread,
// it would block everything else on r's connection.
func (p *process) feed(r io.Reader, last bool) {
	p.mu.Lock()
	stdin := p.stdin
	p.mu.Unlock()
	var err error
	if stdin != nil {
		_, err = io.Copy(stdin, r)
	}
	if err != nil || last {
		_ = p.closeInput()
	}
	_, _ = io.Copy(io.Discard, r)
}

func (p *process) closeInput() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stdin == nil {
		return nil
	}
	err := p.stdin.Close()
	p.stdin = nil
	return err
}

// resize follows the sizes until the channel is closed; nil is never.
func (p *process) resize(sizes <-chan remotecommand.TerminalSize) {
	if sizes == nil {
		return
	}
	for size := range sizes {
		if p.terminal == nil {
			continue
		}
		if raw, err := p.terminal.SyscallConn(); err == nil { // Fd would make it block again
			_ = raw.Control(func(fd uintptr) {
				_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
			})
		}
	}
}

// end ends the process: by SIGTERM, or hang-up on a terminal, and after the grace
// by SIGKILL, or at once without grace. It returns a function that takes this
// back, for when the process has ended.
func (p *process) end(grace time.Duration) (stop func() bool) {
	if grace > 0 {
		polite := syscall.SIGTERM
		if p.terminal != nil {
			polite = syscall.SIGHUP
		}
		_ = p.cmd.Process.Signal(polite)
	}
	return time.AfterFunc(grace, func() {
		_ = p.cmd.Process.Kill()
		// Grandchildren may hold the outputs; nobody reads them any more.
		for _, f := range p.outputs {
			_ = f.Close()
		}
		if p.terminal != nil {
			_ = p.terminal.Close()
		}
	}).Stop
}

// eotCloser is a terminal's input. It has no end that could be closed while the
// output goes on; the character that stands for it does the same in a shell.
type eotCloser struct{ terminal *os.File }

func (t eotCloser) Write(p []byte) (int, error) { return t.terminal.Write(p) }

func (t eotCloser) Close() error {
	_, err := t.terminal.Write([]byte{4})
	return err
}

func winsize(size remotecommand.TerminalSize) *pty.Winsize {
	return &pty.Winsize{Rows: size.Height, Cols: size.Width}
}

// hearHangup undoes what nohup does to our children: whoever ignores SIGHUP hands
// that on, and then nothing ends a command whose terminal is gone. A signal that is
// handled, by whatever does nothing, is handed on as the default.
var hearHangup = sync.OnceFunc(func() {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
})

// startTerminal starts cmd on a new pty and returns our end of it. The end that
// the library returns blocks a thread in read, and closing it would not end that.
func startTerminal(cmd *exec.Cmd, size *pty.Winsize) (*os.File, error) {
	hearHangup()
	blocking, err := pty.StartWithSize(cmd, size)
	if err != nil {
		return nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("open the terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), blocking.Name()), nil
}
