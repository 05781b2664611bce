package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// container runs one command, once. A container without a command runs and does
// nothing until it is ended.
type container struct {
	name, image         string
	terminal            bool
	stdinOnce, hasStdin bool
	log                 *containerLog
	streams             map[string]*fanOut
	process             *process // nil for a container without a command
	started             metav1.Time
	ended               chan struct{} // closed at the end, after which the next two are set
	code                int
	finished            metav1.Time
	endOnce             sync.Once
}

// startContainer starts a container of a pod; report is called after its end. The
// command's failure to start is the container's end, as it is on a real node.
func (p *pod) startContainer(spec *corev1.Container, report func()) *container {
	c := &container{
		name: spec.Name, image: spec.Image,
		terminal: spec.TTY, hasStdin: spec.Stdin, stdinOnce: spec.StdinOnce,
		log:     newContainerLog(),
		streams: map[string]*fanOut{corev1.LogStreamStdout: {}, corev1.LogStreamStderr: {}},
		started: metav1.Now(),
		ended:   make(chan struct{}),
	}
	args := append(append([]string{}, spec.Command...), spec.Args...)
	if len(args) == 0 {
		return c
	}
	run := command{
		args: args, dir: p.dir, env: p.environment(spec), terminal: spec.TTY, input: spec.Stdin,
		stdout: c.sink(corev1.LogStreamStdout), stderr: c.sink(corev1.LogStreamStderr),
	}
	var err error
	if c.process, err = run.start(p.node.config.Start); err != nil {
		c.log.write(corev1.LogStreamStderr, []byte(err.Error()+"\n"))
		c.finish(128) // what container runtimes say
		return c
	}
	p.waits.Go(func() {
		code, err := c.process.wait()
		if err != nil {
			code = 255
		}
		c.finish(code)
		report()
	})
	return c
}

func (c *container) finish(code int) {
	c.endOnce.Do(func() {
		c.code, c.finished = code, metav1.Now()
		c.log.close()
		close(c.ended)
	})
}

// end ends the container within grace and returns when it has ended.
func (c *container) end(grace time.Duration) {
	if c.process == nil {
		c.finish(0)
		return
	}
	stop := c.process.end(grace)
	<-c.ended
	stop()
}

func (c *container) running() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// sink is where the process writes one of its outputs: the log, and who is
// attached.
func (c *container) sink(stream string) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		c.log.write(stream, b)
		c.streams[stream].write(b)
		return len(b), nil
	})
}

// attach connects the streams with the container's process until it ends, or ctx
// does.
func (c *container) attach(ctx context.Context, in io.Reader, out, errOut io.Writer, sizes <-chan remotecommand.TerminalSize) error {
	if !c.running() {
		return fmt.Errorf("container %q is not running", c.name)
	}
	defer c.streams[corev1.LogStreamStdout].add(out)()
	defer c.streams[corev1.LogStreamStderr].add(errOut)()
	if c.process != nil {
		if in != nil {
			if !c.hasStdin {
				return fmt.Errorf("container %q has no standard input", c.name)
			}
			go c.process.feed(in, c.stdinOnce) // ends with the connection
		}
		go c.process.resize(sizes)
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec runs a further command in the container until it ends, or ctx does.
func (p *pod) exec(ctx context.Context, c *container, args []string, terminal bool, in io.Reader, out, errOut io.Writer, sizes <-chan remotecommand.TerminalSize) (int, error) {
	if !c.running() {
		return 0, fmt.Errorf("container %q is not running", c.name)
	}
	if len(args) == 0 {
		return 0, errors.New("no command")
	}
	run := command{
		args: args, dir: p.dir, env: p.environment(p.spec(c.name)), terminal: terminal, input: in != nil,
		stdout: out, stderr: errOut,
	}
	if terminal {
		run.env = append(run.env, "TERM=xterm")
		// The size arrives on a stream of its own, right away from kubectl and never
		// from a client that has no terminal. Without it stty would race with it.
		select {
		case size, ok := <-sizes:
			if ok {
				run.size = winsize(size)
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
	process, err := run.start(p.node.config.Start)
	if err != nil {
		return 0, err
	}
	if in != nil {
		go process.feed(in, true) // ends with the connection
	}
	go process.resize(sizes)
	// Nobody is left to see it: unlike a real node we do not let it run on.
	stop := context.AfterFunc(ctx, func() { process.end(0) })
	defer stop()
	deleted := context.AfterFunc(p.ctx, func() { process.end(0) })
	defer deleted()
	return process.wait()
}

// fanOut writes to any number of writers. One that fails is dropped.
type fanOut struct {
	mu      sync.Mutex
	writers []*attached
}

type attached struct {
	to   io.Writer
	gone atomic.Bool
}

// add adds a writer, which may be nil, and returns a function that removes it.
// Neither waits for a write to another writer.
func (f *fanOut) add(to io.Writer) (remove func()) {
	if to == nil {
		return func() {}
	}
	a := &attached{to: to}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writers = append(f.writers, a)
	return func() { a.gone.Store(true) }
}

func (f *fanOut) write(b []byte) {
	f.mu.Lock()
	current := f.writers
	f.mu.Unlock()
	failed := false
	for _, a := range current {
		if a.gone.Load() {
			failed = true
		} else if _, err := a.to.Write(b); err != nil {
			a.gone.Store(true)
			failed = true
		}
	}
	if !failed {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var kept []*attached
	for _, a := range f.writers {
		if !a.gone.Load() {
			kept = append(kept, a)
		}
	}
	f.writers = kept
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
