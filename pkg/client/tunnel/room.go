package tunnel

import (
	"net"
	"slices"
	"sync"
)

// room is who is on one listener. Anybody on this machine may come in, so whoever
// has not shown yet who he is keeps nobody out: when too many wait, the one who has
// waited longest goes. A client of ours says all at once, and hardly waits.
type room struct {
	mu       sync.Mutex
	waiting  []net.Conn // by age
	admitted map[net.Conn]struct{}
}

// wait takes in a connection that has shown nothing.
func (r *room) wait(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= maxWaiting {
		r.waiting[0].Close()
		r.waiting = slices.Delete(r.waiting, 0, 1)
	}
	r.waiting = append(r.waiting, conn)
}

// enter makes a waiting connection an admitted one, if there are not too many.
func (r *room) enter(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.admitted) >= maxConns {
		return false
	}
	r.forget(conn)
	if r.admitted == nil {
		r.admitted = map[net.Conn]struct{}{}
	}
	r.admitted[conn] = struct{}{}
	return true
}

// leave is called when the connection is over, also when it never waited.
func (r *room) leave(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.admitted, conn)
	r.forget(conn)
}

func (r *room) forget(conn net.Conn) {
	if i := slices.Index(r.waiting, conn); i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
	}
}
