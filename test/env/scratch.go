package env

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

const scratchPrefix = "zt-env-"

// scratch is a temporary directory that is locked while its owner lives. Whoever
// makes the next one removes those whose owner was killed.
type scratch struct {
	dir  string
	lock *flock.Flock
}

func newScratch() (*scratch, error) {
	sweep()
	// Named so that sweep sees it only when its lock is held.
	made, err := os.MkdirTemp("", "zt-new-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	s := &scratch{
		dir:  filepath.Join(os.TempDir(), scratchPrefix+strings.TrimPrefix(filepath.Base(made), "zt-new-")),
		lock: flock.New(filepath.Join(made, "lock")),
	}
	if _, err := s.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", made, err)
	}
	if err := os.Rename(made, s.dir); err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	held.Store(s, nil)
	return s, nil
}

func (s *scratch) remove() error {
	held.Delete(s)
	err := os.RemoveAll(s.dir)
	_ = s.lock.Close()
	return err
}

// sweep removes what killed owners left.
func sweep() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*", "lock"))
	for _, path := range locks {
		lock := flock.New(path, flock.SetFlag(os.O_RDWR)) // no O_CREATE: it may just have gone
		if locked, err := lock.TryLock(); err == nil && locked {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		_ = lock.Close()
	}
}
