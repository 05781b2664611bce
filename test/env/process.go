package env

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// process is one program of the control plane. Its output goes to a file, which
// outlives it for whoever looks for the cause.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; err is set before
	err  error
}

// startProcess runs program in dir, where relative paths of args (and etcd's
// socket, whose path must stay short) are resolved.
func startProcess(group *Group, dir, program string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(program), done: make(chan struct{})}
	p.log = filepath.Join(dir, p.name+".log")
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	// Nothing of the person's: no proxy, no KUBECONFIG, no in-cluster address.
	p.cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := group.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop asks the process to end and waits; at the end of ctx it is killed.
func (p *process) stop(ctx context.Context) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// ended tells of an end that nobody asked for, with the last lines of the log.
func (p *process) ended() error {
	return fmt.Errorf("%s ended (%v); its last lines:\n%s", p.name, p.err, p.tail())
}

func (p *process) tail() []byte {
	const lines = 15
	b, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	end := len(bytes.TrimRight(b, "\n"))
	start := end
	for range lines {
		if start = bytes.LastIndexByte(b[:start], '\n'); start < 0 {
			break
		}
	}
	return b[start+1 : end]
}
