package limit

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kube-zt/zt/pkg/wire"
)

// take takes as much as holder can get.
func take(l *Limiter, class Class, holder string) []*Slot {
	return takeOn(l, class, Holder{Name: holder})
}

func takeOn(l *Limiter, class Class, holder Holder) []*Slot {
	var slots []*Slot
	for {
		slot, refusal := l.Acquire(class, holder)
		if refusal != nil {
			return slots
		}
		slots = append(slots, &slot)
	}
}

func capacities(reads, long int) func(Class) int {
	return func(c Class) int { return [...]int{Read: reads, Write: 0, Long: long}[c] }
}

// TestCapacityChanges: another capacity counts from the next request on, and what
// is in flight beyond it ends by itself.
func TestCapacityChanges(t *testing.T) {
	t.Parallel()
	capacity := 12
	l := New(Options{Capacity: func(Class) int { return capacity }})
	held := take(l, Read, "alice")
	capacity = 4
	if n := len(take(l, Read, "bob")); n != 0 {
		t.Errorf("bob took %d beyond the new capacity", n)
	}
	for _, slot := range held {
		slot.Release()
	}
	if n := len(take(l, Read, "bob")); n != 2 {
		t.Errorf("bob took %d, want half of the new capacity", n)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	l := New(Options{Capacity: capacities(12, 0)})
	alice := take(l, Read, "alice")
	bob := take(l, Read, "bob")
	carol := take(l, Read, "carol")
	if len(alice) != 6 || len(bob) != 4 || len(carol) != 2 {
		t.Errorf("alice %d, bob %d, carol %d; want a half, a third, the rest", len(alice), len(bob), len(carol))
	}
	if n := len(take(l, Write, "alice")); n != DefaultWrites/2 {
		t.Errorf("%d writes", n)
	}
	// What alice gives back is not hers to take again while she has the most.
	alice[0].Release()
	if n := len(take(l, Read, "alice")); n != 0 {
		t.Errorf("alice took %d of one", n)
	}
	if n := len(take(l, Read, "dave")); n != 1 {
		t.Errorf("dave took %d of one", n)
	}
}

// TestDevices: who has filled his share from one device gets something in on
// another, and as much as on the first when that one's requests end. However many
// devices he has, he is one person.
func TestDevices(t *testing.T) {
	t.Parallel()
	l := New(Options{Capacity: capacities(64, 0)})
	on := func(device string) Holder { return Holder{"alice", wire.DeviceID(device)} }
	desk := takeOn(l, Read, on("desk"))
	if len(desk) != 32 {
		t.Errorf("on one device: %d, want the whole share", len(desk))
	}
	laptop := takeOn(l, Read, on("laptop"))
	if len(laptop) != 4 {
		t.Errorf("on the second device: %d, want an eighth of the share", len(laptop))
	}
	// A client that goes wild takes again whatever is given back, at once.
	for len(desk) > 0 {
		desk[0].Release()
		desk = append(desk[1:], takeOn(l, Read, on("desk"))...)
		laptop = append(laptop, takeOn(l, Read, on("laptop"))...)
		if len(laptop) >= 16 {
			break
		}
	}
	if len(desk) > 20 || len(laptop) != 16 {
		t.Errorf("desk %d, laptop %d: want an equal part for each", len(desk), len(laptop))
	}
	all := len(desk) + len(laptop)
	for i := range 100 {
		all += len(takeOn(l, Read, on(fmt.Sprint(i))))
	}
	if all > 36 {
		t.Errorf("alice has %d on a hundred devices", all)
	}
	// Hers are no others' of the same machine.
	if n := len(takeOn(l, Read, Holder{"bob", "desk"})); n != 21 {
		t.Errorf("bob has %d on alice's machine, want a third", n)
	}
}

// TestLong: however much is free, one person's long-running requests are few
// enough for their memory to be known (followWindow in package stream).
func TestLong(t *testing.T) {
	t.Parallel()
	l := New(Options{})
	if n := len(take(l, Long, "alice")); n != 1000 {
		t.Errorf("alice took %d, want 1000", n)
	}
	if n := len(take(l, Long, "bob")); n != 1000 {
		t.Errorf("bob took %d, want 1000", n)
	}
}

func TestCapacityOfOne(t *testing.T) {
	t.Parallel()
	l := New(Options{Capacity: capacities(1, 0)})
	slot, refusal := l.Acquire(Read, Holder{Name: "alice"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	if _, refusal := l.Acquire(Read, Holder{Name: "bob"}); refusal == nil || refusal.Reason != wire.ReasonLimit || refusal.Status() != 429 {
		t.Errorf("%+v", refusal)
	}
	slot.Release()
	slot.Release()
	if _, refusal := l.Acquire(Read, Holder{Name: "bob"}); refusal != nil {
		t.Error(refusal)
	}
}

func TestMove(t *testing.T) {
	t.Parallel()
	var counts [classes]atomic.Int64
	l := New(Options{Capacity: capacities(2, 2), Changed: func(c Class) func(int) { return func(n int) { counts[c].Add(int64(n)) } }})
	first, refusal := l.Acquire(Read, Holder{Name: "alice"})
	if refusal == nil {
		refusal = first.Move(Long)
	}
	if refusal != nil {
		t.Fatal(refusal)
	}
	second, refusal := l.Acquire(Read, Holder{Name: "alice"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	if refusal := second.Move(Long); refusal == nil {
		t.Error("moved beyond her share")
	}
	second.Release()
	first.Release()
	for class := range counts {
		if n := counts[class].Load(); n != 0 {
			t.Errorf("%s: %d left", Class(class), n)
		}
	}
	var none Slot
	none.Release()
	if refusal := none.Move(Long); refusal != nil {
		t.Error(refusal)
	}
}

// TestExact: whatever happens in parallel, the capacity is never exceeded and
// nothing is left in the end.
func TestExact(t *testing.T) {
	t.Parallel()
	const capacity = 16
	var now, most atomic.Int64
	l := New(Options{Capacity: capacities(capacity, 0), Changed: func(Class) func(int) {
		return func(n int) {
			if v := now.Add(int64(n)); v > most.Load() {
				most.Store(v)
			}
		}
	}})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			var held []*Slot
			for range 1000 {
				if slot, refusal := l.Acquire(Read, Holder{fmt.Sprint(i % 7), wire.DeviceID(fmt.Sprint(i % 5))}); refusal == nil {
					held = append(held, &slot)
				}
				if len(held) > 0 && random.IntN(2) == 0 {
					held[0].Release()
					held = held[1:]
				}
			}
			for _, slot := range held {
				slot.Release()
			}
		})
	}
	wg.Wait()
	if now.Load() != 0 || most.Load() > capacity || len(l.pools[Read].holders)+len(l.pools[Read].devices) != 0 {
		t.Errorf("%d left, at most %d, holders %v, devices %v", now.Load(), most.Load(), l.pools[Read].holders, l.pools[Read].devices)
	}
}
