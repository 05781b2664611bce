package agent

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
)

// fanout is the agent's log: a file that keeps what an operator would want, and
// the terminals of those who asked for everything with --verbose. What goes in is
// secret-free, so it may go anywhere.
type fanout struct {
	file slog.Handler
	mu   *sync.Mutex
	subs map[chan []byte]bool // guarded by mu
	wrap func(slog.Handler) slog.Handler
}

func newLog(w io.Writer, debug bool) (*slog.Logger, *fanout) {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	f := &fanout{
		file: slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}),
		mu:   new(sync.Mutex), subs: map[chan []byte]bool{},
		wrap: func(h slog.Handler) slog.Handler { return h },
	}
	return slog.New(f), f
}

// Enabled implements slog.Handler.
func (f *fanout) Enabled(ctx context.Context, l slog.Level) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) > 0 || f.file.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (f *fanout) Handle(ctx context.Context, r slog.Record) error {
	f.mu.Lock()
	listened := len(f.subs) > 0
	f.mu.Unlock()
	if listened {
		var line bytes.Buffer
		h := f.wrap(slog.NewTextHandler(&line, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if h.Handle(ctx, r) == nil {
			f.tell(line.Bytes())
		}
	}
	if f.file.Enabled(ctx, r.Level) {
		return f.file.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (f *fanout) WithAttrs(attrs []slog.Attr) slog.Handler {
	g := *f
	g.file = f.file.WithAttrs(attrs)
	g.wrap = func(h slog.Handler) slog.Handler { return f.wrap(h).WithAttrs(attrs) }
	return &g
}

// WithGroup implements slog.Handler.
func (f *fanout) WithGroup(name string) slog.Handler {
	g := *f
	g.file = f.file.WithGroup(name)
	g.wrap = func(h slog.Handler) slog.Handler { return f.wrap(h).WithGroup(name) }
	return &g
}

// backlog is how many lines may wait for one terminal. What is more is dropped:
// the agent waits for nobody who only watches.
const backlog = 256

func (f *fanout) tell(line []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for lines := range f.subs {
		select {
		case lines <- line:
		default:
		}
	}
}

// subscribe sends the log to c until cancel, which returns when the last line has
// been sent or c has turned out to take none.
func (f *fanout) subscribe(c *conversation) (cancel func()) {
	lines, sent := make(chan []byte, backlog), make(chan struct{})
	go func() {
		defer close(sent)
		for line := range lines {
			c.send(frameDebug, line)
		}
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[lines] = true
	return func() {
		f.mu.Lock()
		delete(f.subs, lines)
		f.mu.Unlock()
		close(lines)
		<-sent
	}
}
