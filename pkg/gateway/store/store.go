package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/gofrs/flock"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// Errors that callers may match.
var (
	// ErrLocked: another process holds state/.
	ErrLocked = errors.New("state is in use by another process")
	// ErrUsed: the hash given to UseOnce was used before.
	ErrUsed = errors.New("already used")
	// ErrOwned: the device has another owner already.
	ErrOwned = errors.New("device belongs to somebody else")
	// ErrNotDurable: what takes away could not be written. It is in force, the
	// store goes on trying, and until that has worked it is lost with the process.
	ErrNotDurable = errors.New("in force, but not on the disk")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Options of Open; the zero value is useful.
type Options struct {
	// Logger takes life-cycle lines; nil discards them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// OnReload is told the outcome of every reload that found a change, and the
	// version that is in force after it. It must not block.
	OnReload func(version string, err error)
	// OnImport is told of every revocation that config/ put in force. It must not
	// block.
	OnImport func(Import)
	// OnWrite is told when Health changes. It must not block.
	OnWrite func(Health)
}

// Import is a revocation that config/ put in force.
type Import struct {
	// File that says it, as it is found in config/.
	File       string
	Revocation *v1alpha1.Revocation
	// Durable: it is on the disk.
	Durable bool
}

// Store is an open directory. Its methods may be called concurrently.
type Store struct {
	config string // config/
	state  string // state/
	lock   *flock.Flock
	log    *slog.Logger
	now    func() time.Time
	report func(version string, err error)
	note   func(Import)
	tell   func(Health)
	// notices of changed files; tests take them away.
	notices func() (*fsnotify.Watcher, error)

	current atomic.Pointer[Snapshot]

	reloading sync.Mutex // one reading of config/ at a time
	refused   string     // why the last reading was, empty when it was not

	mu      sync.Mutex
	st      *state // changed by the writer alone, under mu
	loaded  *Config
	journal *journal // the writer's
	saved   int64    // size of the snapshot file in bytes
	queue   []*write
	writing bool
	using   map[string]bool // hashes of UseOnce on their way to the disk
	changes uint64          // names given to session changes by this process
	closed  bool
	health  Health
	durable uint64 // the sequence up to which all that is in force is on the disk
	late    uint64 // the sequence of the newest that was not when it came into force
	// persisting: persist runs.
	persisting bool
	watch      map[chan struct{}]struct{}

	closing chan struct{}  // closed by Close
	writer  sync.WaitGroup // drain and persist
}

// Open locks DIR/state, reads it, and loads DIR/config; any fault in either is
// an error. It starts nothing: Run watches.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{
		config: filepath.Join(dir, "config"),
		state:  filepath.Join(dir, "state"),
		log:    o.Logger, now: o.Now, report: o.OnReload, note: o.OnImport, tell: o.OnWrite,
		notices: fsnotify.NewWatcher,

		using:   map[string]bool{},
		watch:   map[chan struct{}]struct{}{},
		closing: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.report == nil {
		s.report = func(string, error) {}
	}
	if s.note == nil {
		s.note = func(Import) {}
	}
	if s.tell == nil {
		s.tell = func(Health) {}
	}
	if err := s.acquire(); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("state %s: %w", s.state, err), s.release())
	}
	// Bounded by the time within which a tree must be stable.
	if err := s.Reload(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("configuration %s: %w", s.config, err), s.Close())
	}
	return s, nil
}

// acquire makes state/ this process's own.
func (s *Store) acquire() error {
	if _, err := os.Stat(s.config); err != nil {
		return fmt.Errorf("configuration: %w (`zt-gateway init` writes one)", err)
	}
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(s.state)
	if err != nil {
		return err
	}
	if loose := info.Mode().Perm() & 0o077; loose != 0 {
		s.log.Warn("state directory was open to others; closing it", "directory", s.state, "mode", info.Mode().Perm().String())
		if err := os.Chmod(s.state, 0o700); err != nil {
			return fmt.Errorf("state directory is open to others: %w", err)
		}
	}
	path := filepath.Join(s.state, "lock")
	s.lock = flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	held, err := s.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if !held {
		owner, _ := os.ReadFile(path)
		return fmt.Errorf("%s: %w%s; one directory serves one gateway", s.state, ErrLocked, describePID(owner))
	}
	// For whoever is refused; the lock itself does not depend on it.
	return os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
}

func describePID(owner []byte) string {
	pid := strings.TrimSpace(string(owner))
	if pid == "" || len(pid) > 20 || strings.Trim(pid, "0123456789") != "" {
		return ""
	}
	return " (pid " + pid + ")"
}

// recover reads what the last process left and begins a new generation.
func (s *Store) recover() error {
	st, size, err := loadState(s.state)
	if err != nil {
		return err
	}
	records, whole, torn, err := readJournal(s.state)
	if err != nil {
		return err
	}
	if err := st.replay(records); err != nil {
		return err
	}
	if torn > 0 {
		s.log.Warn("journal ended in a record that a crash left half written; it was never confirmed and is dropped",
			"bytes", torn, "sequence", st.Sequence)
	}
	if s.journal, err = openJournal(s.state, whole); err != nil {
		return err
	}
	s.st, s.saved = st, size
	if s.journal.size > compactAbove {
		if err := s.compact(); err != nil {
			return err
		}
	}
	// The clock alone would do against a restored copy, the count alone against
	// a clock that was set back; together the epoch never falls.
	generation := max(st.Generation+1, uint64(max(0, s.now().Unix())))
	return s.commit(context.Background(), operation{Open: &openOperation{Generation: generation}})
}

// Close lets state/ go. Writes after it return ErrClosed. What is in force and
// not on the disk is tried once more; the error says when that failed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()
	s.writer.Wait()
	return errors.Join(s.lastChance(), s.release())
}

func (s *Store) release() error {
	var err error
	if s.journal != nil {
		err = s.journal.f.Close()
	}
	return errors.Join(err, s.lock.Unlock())
}

// Snapshot is the present one; it does not block.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// Subscribe returns a channel that holds a signal after every swap of the
// snapshot since it was last read, until ctx ends.
func (s *Store) Subscribe(ctx context.Context) <-chan struct{} {
	signal := make(chan struct{}, 1)
	s.mu.Lock()
	s.watch[signal] = struct{}{}
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watch, signal)
	})
	return signal
}

// publish swaps the snapshot; the caller holds mu.
func (s *Store) publish(next *Snapshot) {
	s.current.Store(next)
	for signal := range s.watch {
		select {
		case signal <- struct{}{}:
		default: // one that was not read yet says the same
		}
	}
}
