package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// compactAbove is the size of the journal in bytes above which a snapshot is
	// written, unless the snapshot is larger than that itself.
	compactAbove = 4 << 20
	// longestWrite bounds what one caller may write, and mostAtOnce what one
	// flush of the disk carries, in bytes.
	longestWrite = 1 << 20
	mostAtOnce   = longestRecord / 2
)

// write is what one caller wants on the disk.
type write struct {
	operations []operation
	encoded    []byte // without the brackets
	done       chan struct{}
	err        error
}

// commit returns when the operations are on the disk and in the state. After an
// error they never will be, but for what only takes away: that is in force
// (ErrNotDurable). Without operations it returns when all that is in force is on
// the disk. Those who come while the disk is busy share the next flush. A caller
// whose ctx ends does not learn what became of its operations.
func (s *Store) commit(ctx context.Context, operations ...operation) error {
	s.mu.Lock()
	w, err := s.enqueue(operations...)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return w.wait(ctx)
}

func (w *write) wait(ctx context.Context) error {
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue hands operations to the writer; the caller holds mu. The writer is a
// goroutine that lives while there is something to write; Close waits for it.
func (s *Store) enqueue(operations ...operation) (*write, error) {
	if s.closed {
		return nil, ErrClosed
	}
	encoded, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	if len(encoded) > longestWrite {
		return nil, fmt.Errorf("%d bytes are too much for one write, at most %d are taken", len(encoded), longestWrite)
	}
	w := &write{operations: operations, encoded: encoded[1 : len(encoded)-1], done: make(chan struct{})}
	s.queue = append(s.queue, w)
	if !s.writing {
		s.writing = true
		s.writer.Go(s.drain)
	}
	return w, nil
}

// drain writes until the queue is empty.
func (s *Store) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		batch := s.nextBatch()
		s.mu.Unlock()
		err := s.flush(batch)
		s.mu.Lock()
		if err != nil {
			s.keep(batch, err)
		} else {
			s.take(batch)
			s.durable = s.st.Sequence
		}
		s.judge(err)
		for _, w := range batch {
			for _, o := range w.operations {
				if o.Use != nil {
					delete(s.using, o.Use.Hash)
				}
			}
			close(w.done)
		}
	}
	s.writing = false
}

// nextBatch takes from the queue what one record may hold; the caller holds mu.
func (s *Store) nextBatch() []*write {
	n, size := 1, len(s.queue[0].encoded)
	for n < len(s.queue) && size+len(s.queue[n].encoded) < mostAtOnce {
		size += len(s.queue[n].encoded)
		n++
	}
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	return batch
}

// flush puts a batch on the disk as one record, behind all that is in force.
func (s *Store) flush(batch []*write) error {
	operations, payload := 0, []byte("[")
	for _, w := range batch {
		if len(w.operations) == 0 {
			continue
		}
		if operations > 0 {
			payload = append(payload, ',')
		}
		payload = append(payload, w.encoded...)
		operations += len(w.operations)
	}
	payload = append(payload, ']')
	if s.journal.broken || s.journal.size > max(compactAbove, 2*s.saved) {
		if err := s.compact(); err != nil && s.journal.broken {
			return err
		} else if err != nil {
			s.log.Warn("state could not be compacted; the journal grows on", "error", err.Error())
		}
	}
	if operations == 0 {
		return nil
	}
	return s.journal.append(record{sequence: s.st.Sequence + uint64(operations), payload: payload})
}

// compact writes the state whole and begins an empty journal. It also heals a
// journal of which it is not known how it ends: what it may hold beyond the
// state was never confirmed to anybody. Only the writer and Open call it; the
// state does not change meanwhile.
func (s *Store) compact() error {
	s.mu.Lock()
	s.st.expire(s.now())
	s.mu.Unlock()
	size, err := s.st.save(s.state)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	fresh, err := newJournal(s.state)
	if err != nil {
		// The old file may be gone from its name already.
		s.journal.broken = true
		return fmt.Errorf("begin journal: %w", err)
	}
	_ = s.journal.f.Close() // nothing of it is needed any more
	s.journal, s.saved = fresh, size
	s.mu.Lock()
	s.durable = s.st.Sequence
	s.mu.Unlock()
	return nil
}

// take applies a batch and publishes what it changed; the caller holds mu.
func (s *Store) take(batch []*write) {
	var shown []operation
	for _, w := range batch {
		for _, o := range w.operations {
			if s.st.apply(o) {
				shown = append(shown, o)
			}
		}
	}
	s.show(shown)
}

// show publishes a snapshot with what operations changed; the caller holds mu.
func (s *Store) show(operations []operation) {
	old := s.current.Load()
	if old == nil || len(operations) == 0 {
		return
	}
	next := *old
	next.Epoch = s.st.epoch()
	next.Revocations = s.st.Revocations
	var devices []wire.DeviceID
	for _, o := range operations {
		if o.Device != nil {
			devices = append(devices, o.Device.ID)
		} else if o.Revoke != nil && o.Revoke.Spec.Device != "" {
			devices = append(devices, wire.DeviceID(o.Revoke.Spec.Device))
		}
	}
	if len(devices) > 0 {
		next.Devices = maps.Clone(old.Devices)
		for _, id := range devices {
			next.Devices[id] = s.merged(id)
		}
	}
	s.publish(&next)
}

// merged is the present view of one device; the caller holds mu.
func (s *Store) merged(id wire.DeviceID) v1alpha1.Device {
	var seen *v1alpha1.DeviceStatus
	if status, ok := s.st.Devices[id]; ok {
		seen = &status
	}
	revoked := s.st.byTarget[target(&v1alpha1.RevocationSpec{Device: string(id)})] != nil
	return merge(id, s.loaded.wishes[id], seen, revoked)
}
