package env

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// Group is a process group that ends with this process, however that ends. Its
// leader is a shell that reads from a pipe whose other end only we hold: when the
// read ends, because Close was called or because the kernel closed the pipe of a
// killed process, the leader kills the group, itself included. A process cannot
// slip away by its parent's death, only by leaving the group (setsid), which is
// why the node's terminals end by hang-up instead.
//
// PR_SET_PDEATHSIG would not do: it follows the thread that started the child,
// and it is not inherited by grandchildren.
type Group struct {
	leader *exec.Cmd
	pipe   io.Closer
	once   sync.Once
}

// NewGroup starts an empty group.
func NewGroup() (*Group, error) {
	// The leader must not die of what is meant for us; the others get no signal
	// from the terminal, because theirs is not the foreground group.
	cmd := exec.Command("/bin/sh", "-c", `trap '' HUP INT TERM; read -r _; kill -KILL 0`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a process group: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a process group: %w", err)
	}
	g := &Group{leader: cmd, pipe: pipe}
	held.Store(g, nil)
	return g, nil
}

// held keeps groups and locks from the garbage collector. It would close their
// files, and so end them, when a caller waits for something else in the meantime
// and never mentions them again.
var held sync.Map

// Start starts cmd as a member of the group; the caller waits for it. It replaces
// cmd.SysProcAttr.
func (g *Group) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: g.leader.Process.Pid}
	return cmd.Start()
}

// Run starts cmd as a member of the group and waits for it.
func (g *Group) Run(cmd *exec.Cmd) error {
	if err := g.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Close kills all members at once and returns when the leader is gone. Who waits
// for a member sees it end.
func (g *Group) Close() error {
	var err error
	g.once.Do(func() {
		held.Delete(g)
		_ = g.pipe.Close()
		var exit *exec.ExitError
		if werr := g.leader.Wait(); !errors.As(werr, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
			err = fmt.Errorf("end the process group: its leader ended with %v, not by its own signal", werr)
		}
	})
	return err
}
