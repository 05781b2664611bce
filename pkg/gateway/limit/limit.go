// Package limit keeps one person from taking a whole cluster's worth of work.
//
// A request takes a slot of its class before its token is looked at, in the
// name of whoever the stream has proved to be, or of the source (of IPv6, the site) where
// nothing is proved. Everybody may use what is free, up to an equal share of
// the capacity among those who have something in flight and one more: so a
// single person gets half, and there is always room for somebody who comes
// anew. Beyond that the answer is 429 with a Retry-After of a second, which
// stock clients obey by themselves.
//
// A person's share is parted likewise among the devices that he is working on, so
// that what runs wild on one does not keep him from the cluster on the others.
// It is the person who has the share and not the device: whoever has many devices
// must not be many, and a machine that many people work on must not be one.
//
// Long-running requests (watch, exec, logs -f) give their slot back as soon as
// they are known for what they are and take one of their own class. Of that nobody
// has more than an eighth, since it may be held for days.
package limit

import (
	"sync"

	"github.com/kube-zt/zt/pkg/wire"
)

// Class of work; each has its own capacity.
type Class int

const (
	Read Class = iota
	Write
	Long
	classes
)

func (c Class) String() string { return [...]string{"read", "write", "long"}[c] }

// Defaults of the capacities of one cluster.
const (
	DefaultReads  = 400
	DefaultWrites = 200
	DefaultLong   = 8000
)

// Options of a Limiter.
type Options struct {
	// Capacity of a class. It is asked for at every request, so that it may change
	// while requests are in flight; zero, or nil, means the default.
	Capacity func(Class) int
	// Changed returns what is told of every slot of a class that is taken (+1) and
	// given back (-1); may be nil.
	Changed func(Class) func(delta int)
}

// Limiter counts what is in flight toward one cluster.
type Limiter struct {
	pools [classes]pool
}

type pool struct {
	changed  func(int)
	capacity func() int
	parts    int // nobody's share is larger than one in so many

	mu      sync.Mutex
	total   int
	holders map[string]held // by name; entries at zero are removed
	devices map[Holder]int  // likewise
}

// held is what one name holds, and how many of its devices hold something.
type held struct{ slots, devices int }

// Holder is in whose name a slot is held: a person, or a source, and the device
// that the person is on, empty for a source.
type Holder struct {
	Name   string
	Device wire.DeviceID
}

// New makes a Limiter with nothing in flight.
func New(o Options) *Limiter {
	l := &Limiter{}
	for class, usual := range [classes]int{Read: DefaultReads, Write: DefaultWrites, Long: DefaultLong} {
		l.pools[class].capacity = func() int {
			if o.Capacity != nil {
				if n := o.Capacity(Class(class)); n > 0 {
					return n
				}
			}
			return usual
		}
		l.pools[class].parts = [classes]int{Read: 2, Write: 2, Long: 8}[class]
		l.pools[class].holders = map[string]held{}
		l.pools[class].devices = map[Holder]int{}
		l.pools[class].changed = func(int) {}
		if o.Changed != nil {
			l.pools[class].changed = o.Changed(Class(class))
		}
	}
	return l
}

// Slot is held while a request is in flight. It is not safe for concurrent use.
type Slot struct {
	limiter *Limiter
	class   Class
	holder  Holder
}

// Acquire takes a slot for holder or says why there is none. It never waits.
func (l *Limiter) Acquire(class Class, holder Holder) (Slot, *wire.Refusal) {
	if !l.pools[class].take(holder) {
		return Slot{}, wire.Refuse(wire.ReasonLimit, "wait for earlier requests to end",
			"too many %s requests to this cluster are in flight", class)
	}
	l.pools[class].changed(1)
	return Slot{l, class, holder}, nil
}

// Release gives the slot back. Further calls do nothing.
func (s *Slot) Release() {
	if s.limiter == nil {
		return
	}
	s.limiter.pools[s.class].changed(-1) // first: a count never shows more than there is
	s.limiter.pools[s.class].give(s.holder)
	s.limiter = nil
}

// Move exchanges the slot for one of another class; on refusal the slot is
// still held as it was.
func (s *Slot) Move(class Class) *wire.Refusal {
	if s.limiter == nil || s.class == class {
		return nil
	}
	moved, refusal := s.limiter.Acquire(class, s.holder)
	if refusal != nil {
		return refusal
	}
	s.Release()
	*s = moved
	return nil
}

// anew is the part of a share, one in so many, that is kept for devices which
// hold less than the others. It comes on top of the share: a person with one device
// has the whole of that.
const anew = 8

// take follows the shares that the package comment gives. The check and the
// count are one step, so that the capacity is exact.
func (p *pool) take(holder Holder) bool {
	capacity := p.capacity()
	p.mu.Lock()
	defer p.mu.Unlock()
	now, here := p.holders[holder.Name], p.devices[holder]
	active := len(p.holders)
	if now.slots == 0 {
		active++
	}
	if here == 0 {
		now.devices++
	}
	share := max(1, capacity/max(active+1, p.parts))
	room := share
	if now.devices > 1 {
		room += max(1, share/anew)
	}
	if p.total >= capacity || now.slots >= room || here >= max(1, share/now.devices) {
		return false
	}
	now.slots++
	p.holders[holder.Name], p.devices[holder] = now, here+1
	p.total++
	return true
}

func (p *pool) give(holder Holder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total--
	now := p.holders[holder.Name]
	now.slots--
	if p.devices[holder]--; p.devices[holder] <= 0 {
		delete(p.devices, holder)
		now.devices--
	}
	if p.holders[holder.Name] = now; now.slots <= 0 {
		delete(p.holders, holder.Name)
	}
}
