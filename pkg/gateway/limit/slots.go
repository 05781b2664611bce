package limit

import (
	"net/netip"
	"sync"
)

// Slots counts what is open, in all and per key, and refuses what would be too
// much. It is safe for concurrent use. Make it with NewSlots.
type Slots[K comparable] struct {
	total  func() int
	perKey func(K) int

	mu    sync.Mutex
	open  int
	byKey map[K]int
}

// NewSlots makes Slots with nothing open. The limits are asked for every time; zero
// is none.
func NewSlots[K comparable](total func() int, perKey func(K) int) *Slots[K] {
	return &Slots[K]{total: total, perKey: perKey, byKey: make(map[K]int)}
}

// Enter takes one slot in the name of every key, or none at all. leave gives it
// back; a second call does nothing. It never waits.
func (s *Slots[K]) Enter(keys ...K) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := s.total(); limit > 0 && s.open >= limit {
		return nil, false
	}
	for _, key := range keys {
		if limit := s.perKey(key); limit > 0 && s.byKey[key] >= limit {
			return nil, false
		}
	}
	s.open++
	for _, key := range keys {
		s.byKey[key]++
	}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		for _, key := range keys {
			if s.byKey[key]--; s.byKey[key] == 0 {
				delete(s.byKey, key)
			}
		}
	}), true
}

// Open is how many are open.
func (s *Slots[K]) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// siteBits is the prefix that a provider gives to one customer at most (RFC 6177);
// it holds 65,536 of what one subscriber has.
const siteBits = 48

// Sources are in whose names a stranger is counted, narrow first: an IPv4 address,
// or an IPv6 /64, which is what one subscriber has, and the /48 around it, which
// is a site. No address at all is a source, too.
func Sources(addr netip.Addr) []netip.Prefix {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		source, _ := addr.Prefix(64)
		site, _ := addr.Prefix(siteBits)
		return []netip.Prefix{source, site}
	}
	source, _ := addr.Prefix(addr.BitLen())
	return []netip.Prefix{source}
}

// IsSite reports whether a prefix that Sources gave is a whole site.
func IsSite(p netip.Prefix) bool { return p.Addr().Is6() && p.Bits() == siteBits }
