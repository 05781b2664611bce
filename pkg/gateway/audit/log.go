package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxLine bounds one record. Fields that a client chooses are cut long before
// (see [Clip]); the limit catches what was overlooked.
const maxLine = 64 << 10

// Options of a Log. The zero value is useful.
type Options struct {
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Failed is told of every line that could not be written, for a metric and
	// the operator's log. It may be called from any goroutine.
	Failed func(error)
}

// Log is safe for concurrent use.
type Log struct {
	path    string
	now     func() time.Time
	failed  func(error)
	buffers sync.Pool

	mu   sync.Mutex // one write at a time, so that lines never mix
	file *os.File
}

// Open opens or creates the log at path, without following a symbolic link in its
// last element. A file that others can open is made 0600, or it is an error. The log is appended to and never read.
func Open(path string, o Options) (*Log, error) {
	l := &Log{path: path, now: o.Now, failed: o.Failed}
	if l.now == nil {
		l.now = time.Now
	}
	if l.failed == nil {
		l.failed = func(error) {}
	}
	l.buffers.New = func() any { return new([]byte) }
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	l.file = file
	return l, nil
}

func open(path string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if err := tighten(file); err != nil {
		return nil, fmt.Errorf("open audit log: %w", errors.Join(err, file.Close()))
	}
	return file, nil
}

// tighten takes from others what they may do with a file that was there before.
// A log that they could read or write is not used.
func tighten(file *os.File) error {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return file.Chmod(0o600)
}

// Reopen starts a new file at the log's path, for rotation by rename. On an
// error the old file stays in use.
func (l *Log) Reopen() error {
	file, err := open(l.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.file
	l.file = file
	l.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}

// Close flushes to disk and closes. Later records fail.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// Intent writes what is about to happen. When it returns an error the thing
// must not happen.
func (l *Log) Intent(r Record) error {
	r.Kind = KindIntent
	return l.write(&r)
}

// Outcome writes how something ended or why it was refused. A failure is
// reported to Options.Failed and changes nothing for the caller.
func (l *Log) Outcome(r Record) {
	r.Kind = KindOutcome
	_ = l.write(&r)
}

// Event writes something that is not a request to a cluster. A caller that
// must not go on unrecorded looks at the error; others may ignore it, it has
// been reported.
func (l *Log) Event(r Record) error {
	r.Kind = KindEvent
	return l.write(&r)
}

func (l *Log) write(r *Record) error {
	if r.Time.IsZero() {
		r.Time = l.now()
	}
	r.Time = r.Time.UTC()
	r.DurationMS = float64(r.Duration.Microseconds()) / 1000

	buffer := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buffer)
	line := append(r.appendJSON((*buffer)[:0]), '\n')
	*buffer = line
	var err error
	if len(line) > maxLine {
		err = fmt.Errorf("record of %d bytes is over the limit", len(line))
	} else {
		err = l.append(line)
	}
	if err != nil {
		err = fmt.Errorf("write audit record %s: %w", r.ID, err)
		l.failed(err)
	}
	return err
}

// append hands one line to the kernel. A torn line is taken back: half a
// record would spoil the next one too.
func (l *Log) append(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	n, err := l.file.Write(line)
	if err == nil || n == 0 {
		return err
	}
	info, statErr := l.file.Stat()
	if statErr != nil {
		return errors.Join(err, statErr)
	}
	return errors.Join(err, l.file.Truncate(info.Size()-int64(n)))
}

// Clip cuts s to at most n bytes, at a character's border, and marks the cut.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	cut := n
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}
