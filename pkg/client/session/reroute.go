package session

// Reroute is called when Dial has another way to the gateway: what is asked next
// goes there over a new connection.
func (s *Session) Reroute() {
	s.gw.close()
	if l, _ := s.current(); l != nil {
		l.outer.Redial()
	}
}
