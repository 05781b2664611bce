package session

// Freeze holds back every flight, and with them whatever spends the refresh token,
// while the session's state is in two hands. It reports false, and does nothing,
// when one is in the air. thaw lets them go; a session that ends frozen lets none.
func (s *Session) Freeze() (thaw func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.frozen != nil || s.flying > 0 {
		return nil, false
	}
	frozen := make(chan struct{})
	s.frozen = frozen
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.frozen = nil
		close(frozen)
	}, true
}

// start admits a flight, once nobody holds it back; false when none may start any
// more.
func (s *Session) start() bool {
	for {
		s.mu.Lock()
		frozen := s.frozen
		if s.closed || frozen == nil {
			closed := s.closed
			if !closed {
				s.flying++
				s.work.Add(1)
			}
			s.mu.Unlock()
			return !closed
		}
		s.mu.Unlock()
		select {
		case <-frozen:
		case <-s.closing:
			return false
		}
	}
}

// finish is a flight's end.
func (s *Session) finish() {
	s.mu.Lock()
	s.flying--
	s.mu.Unlock()
	s.work.Done()
}
