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
	subs map[*conversation]bool // guarded by mu
	wrap func(slog.Handler) slog.Handler
}

func newLog(w io.Writer, debug bool) (*slog.Logger, *fanout) {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	f := &fanout{
		file: slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}),
		mu:   new(sync.Mutex), subs: map[*conversation]bool{},
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
	subs := make([]*conversation, 0, len(f.subs))
	for c := range f.subs {
		subs = append(subs, c)
	}
	f.mu.Unlock()
	if len(subs) > 0 {
		var line bytes.Buffer
		h := f.wrap(slog.NewTextHandler(&line, &slog.HandlerOptions{Level: slog.LevelDebug}))
		if h.Handle(ctx, r) == nil {
			for _, c := range subs {
				c.send(frameDebug, line.Bytes())
			}
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

func (f *fanout) subscribe(c *conversation) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[c] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, c)
	}
}
