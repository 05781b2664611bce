package tunnel

import "slices"

// Redial makes a new connection for whatever comes next, because the way to the
// edge is another one now. Streams that run stay where they are until they end.
func (o *Outer) Redial() {
	o.mu.Lock()
	links := slices.Clone(o.links)
	o.mu.Unlock()
	for _, l := range links {
		l.Retire()
	}
	o.nudge()
}
