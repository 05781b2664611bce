package revoke

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// within is how long Apply waits for its cuts.
	within = 2 * time.Second
	// parallel bounds the callbacks that run at once, and patience is how long
	// one may keep its place: those that block must not hold up the rest.
	parallel = 256
	patience = 50 * time.Millisecond
	// shards keep goroutines that open and close from waiting for each other.
	shards = 64
)

// Registry is the deny set and the register. Make it with New. It starts no
// goroutine but the callbacks of Apply.
type Registry struct {
	deny atomic.Pointer[denySet]
	next atomic.Uint32
	live [shards]shard

	applying sync.Mutex // one Apply at a time
}

type shard struct {
	mu      sync.Mutex
	entries map[*entry]struct{}
}

type entry struct {
	facts Facts
	cut   func(*wire.Refusal)
	done  atomic.Bool // cut was called
}

// New returns a Registry with an empty deny set.
func New() *Registry {
	r := &Registry{}
	r.deny.Store(newDenySet(nil, wire.Epoch{}))
	for i := range r.live {
		r.live[i].entries = map[*entry]struct{}{}
	}
	return r
}

// Register enters something live, before Check. cut is called at most once,
// from another goroutine, when a revocation matches; it must not block: close
// or cancel, and return. release takes the entry out again and may be called
// any number of times; a cut that began before it may still be running.
func (r *Registry) Register(f Facts, cut func(*wire.Refusal)) (release func()) {
	f.complete()
	e := &entry{facts: f, cut: cut}
	s := &r.live[r.next.Add(1)%shards]
	s.mu.Lock()
	s.entries[e] = struct{}{}
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.entries, e)
		s.mu.Unlock()
	}
}

// Check refuses what is revoked, nil where nothing is. It does not block.
func (r *Registry) Check(f Facts) *wire.Refusal {
	f.complete()
	return r.deny.Load().check(&f)
}

// Part parts f.Roles into those that somebody may still be judged with and those
// that a revocation took away.
func (r *Registry) Part(f Facts) (left, removed []wire.Role) {
	left, removed = f.Roles, r.Removed(f)
	if len(removed) > 0 {
		left = slices.DeleteFunc(slices.Clone(left), func(role wire.Role) bool { return slices.Contains(removed, role) })
	}
	return left, removed
}

// Removed are the roles in f.Roles that a revocation took away.
func (r *Registry) Removed(f Facts) []wire.Role {
	removed, _ := r.deny.Load().removed(&f)
	return removed
}

// Epoch of the deny set that is in force.
func (r *Registry) Epoch() wire.Epoch { return r.deny.Load().epoch }

// Apply puts revocations in force and cuts what lives and matches. It returns
// how many it cut, when their callbacks have returned or 2 s have passed. An
// epoch older than the one in force changes nothing: a deny set never shrinks
// because messages overtook each other.
func (r *Registry) Apply(revocations []*v1alpha1.Revocation, epoch wire.Epoch) int {
	r.applying.Lock()
	defer r.applying.Unlock()
	if epoch.Less(r.deny.Load().epoch) {
		return 0
	}
	set := newDenySet(revocations, epoch)
	r.deny.Store(set)

	// From here on Check sees the new set; what passed the old one registered
	// before it checked, and so stands in what is walked now.
	var cuts []func()
	for i := range r.live {
		cuts = append(cuts, r.live[i].matching(set)...)
	}
	run(cuts)
	return len(cuts)
}

// matching takes the cuts of those entries that set ends.
func (s *shard) matching(set *denySet) (cuts []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.entries {
		if e.done.Load() {
			continue
		}
		refusal := set.cut(&e.facts)
		if refusal == nil || !e.done.CompareAndSwap(false, true) {
			continue
		}
		cuts = append(cuts, func() { e.cut(refusal) })
	}
	return cuts
}

// run calls all cuts, a bounded number at once.
func run(cuts []func()) {
	if len(cuts) == 0 {
		return
	}
	places := make(chan struct{}, parallel)
	var running sync.WaitGroup
	for _, cut := range cuts {
		places <- struct{}{}
		var leave sync.Once
		free := func() { leave.Do(func() { <-places }) }
		late := time.AfterFunc(patience, free)
		running.Go(func() {
			defer free()
			defer late.Stop()
			cut()
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		running.Wait()
	}()
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
	}
}

// Live lists what is registered, in no order.
func (r *Registry) Live() []Facts {
	var live []Facts
	for i := range r.live {
		s := &r.live[i]
		s.mu.Lock()
		for e := range s.entries {
			live = append(live, e.facts)
		}
		s.mu.Unlock()
	}
	return live
}
