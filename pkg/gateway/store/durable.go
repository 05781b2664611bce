package store

import (
	"fmt"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// firstRetry and longestRetry bound the pause between two attempts to write
	// what is in force and not on the disk. Each attempt writes the whole state.
	firstRetry   = 250 * time.Millisecond
	longestRetry = 30 * time.Second
)

// Health says how it stands with writing.
type Health struct {
	// Failing is why the last write failed, nil after one that did not.
	Failing error
	// NotDurable: something is in force that would be lost with the process.
	NotDurable bool
}

// keep puts in force what a failed batch takes away, and says so to its callers.
// Whoever locks a thief out must not wait for room on a disk. Nothing else of
// the batch has happened, but its sequences are used up: the record may stand
// on the disk all the same, and no epoch may have two meanings. The state is then
// ahead of the journal, so that only a snapshot can be written next, which holds
// what was kept. The caller holds mu.
func (s *Store) keep(batch []*write, err error) {
	s.journal.broken = true
	var shown []operation
	for _, w := range batch {
		takesAway := true
		for _, o := range w.operations {
			if o.Revoke == nil {
				takesAway = false
				s.st.Sequence++
				continue
			}
			if s.st.apply(o) {
				shown = append(shown, o)
			}
		}
		if w.err = err; takesAway {
			w.err = fmt.Errorf("%w: %w", ErrNotDurable, err)
		}
	}
	if len(shown) == 0 {
		return
	}
	s.late = s.st.Sequence
	s.log.Error("state could not be written; what it takes away is in force and would be lost with the process",
		"revocations", len(shown), "error", err.Error())
	s.show(shown)
	if !s.persisting && !s.closed {
		s.persisting = true
		s.writer.Go(s.persist)
	}
}

// judge notes how a write went, and says what has changed; the caller holds mu.
func (s *Store) judge(err error) {
	before, now := s.health, Health{Failing: err, NotDurable: s.late > s.durable}
	s.health = now
	switch {
	case err != nil && (before.Failing == nil || before.Failing.Error() != err.Error()):
		s.log.Error("state cannot be written; nothing is granted that must be in it", "error", err.Error())
	case err == nil && before.Failing != nil:
		s.log.Info("state is written again", "epoch", s.st.epoch().String())
	case before.NotDurable == now.NotDurable:
		return
	}
	s.tell(now)
}

// persist goes on trying to write what is in force, until that has worked or the
// store closes, which waits for it.
func (s *Store) persist() {
	for pause := firstRetry; ; pause = min(2*pause, longestRetry) {
		retry := time.NewTimer(pause)
		select {
		case <-s.closing:
			retry.Stop()
			return
		case <-retry.C:
		}
		s.mu.Lock()
		if s.late <= s.durable {
			s.persisting = false
			s.mu.Unlock()
			return
		}
		w, err := s.enqueue()
		s.mu.Unlock()
		if err != nil {
			return // closed
		}
		<-w.done
	}
}

// lastChance writes what is in force and not on the disk. Nobody writes any more.
func (s *Store) lastChance() error {
	s.mu.Lock()
	late := s.late > s.durable
	s.mu.Unlock()
	if !late {
		return nil
	}
	if err := s.compact(); err != nil {
		s.log.Error("revocations are lost that could not be written", "error", err.Error())
		return fmt.Errorf("revocations are lost: %w", err)
	}
	return nil
}

// onDisk: r outlives this process. The caller holds mu.
func (s *Store) onDisk(r *v1alpha1.Revocation) bool {
	return !(wire.Epoch{Generation: s.st.Generation, Sequence: s.durable}).Less(epochOf(r))
}
