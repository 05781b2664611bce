package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// logLimit is how many bytes of a container's log are kept; the oldest go first.
const logLimit = 64 << 20

// logLine is a line with its end, or the last piece without one.
type logLine struct {
	time   time.Time
	stream string // corev1.LogStreamStdout or corev1.LogStreamStderr
	text   []byte
}

// containerLog keeps the lines of a container in memory. Like a container runtime
// it shows a line once it is complete.
type containerLog struct {
	mu      sync.Mutex
	lines   []logLine
	dropped int // lines that were before lines[0]
	size    int
	partial map[string][]byte
	closed  bool
	changed chan struct{} // closed and replaced at every change
}

func newContainerLog() *containerLog {
	return &containerLog{partial: map[string][]byte{}, changed: make(chan struct{})}
}

func (l *containerLog) write(stream string, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.partial[stream]
	text = append(text, p...)
	now := time.Now()
	for {
		i := bytes.IndexByte(text, '\n')
		if i < 0 {
			break
		}
		l.append(logLine{now, stream, text[: i+1 : i+1]})
		text = text[i+1:]
	}
	l.partial[stream] = text
	l.notify()
}

// close ends the log: the pieces of lines that are left, and those who follow.
func (l *containerLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream, text := range l.partial {
		if len(text) > 0 {
			l.append(logLine{time.Now(), stream, text})
		}
	}
	l.partial, l.closed = nil, true
	l.notify()
}

func (l *containerLog) append(line logLine) {
	l.lines = append(l.lines, line)
	l.size += len(line.text)
	for l.size > logLimit {
		l.size -= len(l.lines[0].text)
		l.lines = l.lines[1:]
		l.dropped++
	}
}

func (l *containerLog) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// from returns the lines from number i on, the number of the line after them,
// whether there will be more, and a channel that is closed when there are.
func (l *containerLog) from(i int) (lines []logLine, next int, more bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i = max(i, l.dropped)
	return l.lines[i-l.dropped:], l.dropped + len(l.lines), !l.closed, l.changed
}

// parseLogOptions reads the query that the API server makes of PodLogOptions.
func parseLogOptions(query url.Values) (corev1.PodLogOptions, error) {
	var o corev1.PodLogOptions
	var errs []error
	number := func(name string) *int64 {
		text := query.Get(name)
		if text == "" {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return &n
	}
	o.TailLines, o.LimitBytes, o.SinceSeconds = number("tailLines"), number("limitBytes"), number("sinceSeconds")
	o.Follow, o.Timestamps, o.Previous = query.Get("follow") == "true", query.Get("timestamps") == "true", query.Get("previous") == "true"
	if since := query.Get("sinceTime"); since != "" {
		parsed, err := time.Parse(time.RFC3339, since)
		if err != nil {
			errs = append(errs, fmt.Errorf("sinceTime: %w", err))
		}
		o.SinceTime = &metav1.Time{Time: parsed}
	}
	if stream := query.Get("stream"); stream != "" {
		o.Stream = &stream
	}
	return o, errors.Join(errs...)
}

// show writes the log to w as the options say, flushing after each batch, and
// returns at its end, or follows it until ctx ends.
func (l *containerLog) show(ctx context.Context, w io.Writer, flush func(), o corev1.PodLogOptions) error {
	var since time.Time
	switch {
	case o.SinceTime != nil:
		since = o.SinceTime.Time
	case o.SinceSeconds != nil:
		since = time.Now().Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	wanted := func(line logLine) bool {
		return !line.time.Before(since) && (o.Stream == nil || *o.Stream == corev1.LogStreamAll || *o.Stream == line.stream)
	}
	if o.LimitBytes != nil {
		w = &limitedWriter{w, *o.LimitBytes}
	}
	lines, next, more, changed := l.from(0)
	if o.TailLines != nil {
		lines = tail(lines, wanted, int(*o.TailLines))
	}
	for {
		for _, line := range lines {
			if !wanted(line) {
				continue
			}
			if o.Timestamps {
				if _, err := io.WriteString(w, line.time.UTC().Format(time.RFC3339Nano)+" "); err != nil {
					return err
				}
			}
			if _, err := w.Write(line.text); err != nil {
				return err
			}
		}
		flush()
		if !o.Follow || !more {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		lines, next, more, changed = l.from(next)
	}
}

// tail returns the lines from the n-th last wanted one on.
func tail(lines []logLine, wanted func(logLine) bool, n int) []logLine {
	for i := len(lines); i > 0; i-- {
		if n == 0 {
			return lines[i:]
		}
		if wanted(lines[i-1]) {
			n--
		}
	}
	return lines
}

// errLimit ends a log that was asked for up to a limit.
var errLimit = errors.New("limit reached")

type limitedWriter struct {
	to   io.Writer
	left int64
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	short := int64(len(p)) > w.left
	if short {
		p = p[:w.left]
	}
	n, err := w.to.Write(p)
	if w.left -= int64(n); err == nil && short {
		err = errLimit
	}
	return n, err
}

func (n *Node) serveLogs(w http.ResponseWriter, r *http.Request) {
	options, err := parseLogOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, c, err := n.find(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if options.Previous {
		http.Error(w, fmt.Sprintf("previous terminated container %q not found", c.name), http.StatusBadRequest)
		return
	}
	flush := func() { _ = http.NewResponseController(w).Flush() }
	w.Header().Set("Content-Type", "text/plain")
	_ = c.log.show(r.Context(), w, flush, options) // who stops reading needs no answer
}
