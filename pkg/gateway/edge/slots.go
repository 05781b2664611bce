package edge

import (
	"net/netip"
	"sync"
)

// slots counts what is open, in all and per key, and refuses what would be too
// much. The zero limit means no limit.
type slots[K comparable] struct {
	total, perKey func() int

	mu    sync.Mutex
	open  int
	byKey map[K]int
}

func newSlots[K comparable](total, perKey func() int) *slots[K] {
	return &slots[K]{total: total, perKey: perKey, byKey: make(map[K]int)}
}

// enter takes a slot. leave gives it back; a second call does nothing.
func (s *slots[K]) enter(key K) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit := s.total(); limit > 0 && s.open >= limit {
		return nil, false
	}
	if limit := s.perKey(); limit > 0 && s.byKey[key] >= limit {
		return nil, false
	}
	s.open++
	s.byKey[key]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		if s.byKey[key]--; s.byKey[key] == 0 {
			delete(s.byKey, key)
		}
	}), true
}

// count is how many are open.
func (s *slots[K]) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// source is what a budget per source goes by: an IPv4 address, or the /64 of
// an IPv6 address, which is what one subscriber has.
func source(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address at all: everybody without one shares a budget
	}
	return prefix
}
