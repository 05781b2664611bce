package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// Errors that callers may match.
var (
	// ErrLocked: another process holds state/.
	ErrLocked = errors.New("state is in use by another process")
	// ErrUsed: the hash given to UseOnce was used before.
	ErrUsed = errors.New("already used")
	// ErrOwned: the device has another owner already.
	ErrOwned = errors.New("device belongs to somebody else")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Options of Open; the zero value is useful.
type Options struct {
	// Logger takes life-cycle lines; nil discards them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// OnReload is told the outcome of every reload that found a change, nil for
	// success. It must not block.
	OnReload func(error)
}

// Store is an open directory. Its methods may be called concurrently.
type Store struct{}

// Open locks state/, reads it, and loads config/; any fault in either is an
// error. It starts nothing: Run watches.
func Open(dir string, o Options) (*Store, error) { return &Store{}, nil }

// Close lets state/ go. Writes after it return ErrClosed.
func (s *Store) Close() error { return nil }

// Run watches config/ and reloads on change, within 1 s, until ctx ends.
func (s *Store) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Reload reads config/ now. On error the old snapshot stays.
func (s *Store) Reload(ctx context.Context) error { return nil }

// Snapshot is the present one; it does not block.
func (s *Store) Snapshot() *Snapshot { return nil }

// Subscribe returns a channel that holds a signal after every swap of the
// snapshot since it was last read, until ctx ends.
func (s *Store) Subscribe(ctx context.Context) <-chan struct{} { return nil }

// ObserveDevice records what was seen of a device and returns the merged view.
// The first owner stays: ErrOwned for anybody else.
func (s *Store) ObserveDevice(ctx context.Context, id wire.DeviceID, seen v1alpha1.DeviceStatus) (v1alpha1.Device, error) {
	return v1alpha1.Device{}, nil
}

// Revoke puts spec in force for good and returns the epoch from which on it
// holds. A target that is revoked already keeps its epoch.
func (s *Store) Revoke(ctx context.Context, spec v1alpha1.RevocationSpec, by string) (wire.Epoch, error) {
	return wire.Epoch{}, nil
}

// UseOnce records hash, or returns ErrUsed. After expires the record may go.
func (s *Store) UseOnce(ctx context.Context, hash string, expires time.Time) error { return nil }

// PutSession writes a session's record, whole.
func (s *Store) PutSession(ctx context.Context, r SessionRecord) error { return nil }

// Session is one record.
func (s *Store) Session(id wire.SessionID) (SessionRecord, bool) { return SessionRecord{}, false }

// Sessions are all records that have not ended, oldest first.
func (s *Store) Sessions() []SessionRecord { return nil }
