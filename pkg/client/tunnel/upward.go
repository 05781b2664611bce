package tunnel

import (
	"bufio"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// While much comes down, what goes up is mostly leave to send more: Go's HTTP/2
// clients give it for every 4 KiB, in a TLS record of its own, and each would
// become a frame to be sealed, sent and opened. What is short is then gathered
// for a moment, as TCP delays its acknowledgements (RFC 9293, 3.8.6.3): a window
// is megabytes.
const (
	muchDown  = 16 << 10 // bytes since the last that went up
	shortUp   = 1 << 10  // bytes
	gatherFor = time.Millisecond
)

// upward is what kubectl sends.
type upward struct {
	net.Conn
	r *bufio.Reader // in front of Conn

	down  atomic.Int64 // bytes that came down since the last Read
	short time.Time    // when the last Read returned little

	mu    sync.Mutex
	until time.Time // when reading ends; set once the far side has said its last words
}

func (u *upward) Read(b []byte) (int, error) {
	if u.down.Swap(0) >= muchDown {
		time.Sleep(gatherFor - time.Since(u.short)) // nothing, if that is long ago
	}
	n, err := u.r.Read(b)
	if n <= shortUp {
		u.short = time.Now()
	}
	return n, err
}

// downward is kubectl as the one who is written to.
func (u *upward) downward() io.Writer { return (*downward)(u) }

type downward upward

func (d *downward) Write(b []byte) (int, error) {
	n, err := d.Conn.Write(b)
	d.down.Add(int64(n))
	return n, err
}

// again allows to read on after Pull has set the deadline to the past.
func (u *upward) again() {
	u.mu.Lock()
	defer u.mu.Unlock()
	_ = u.SetReadDeadline(u.until)
}

// last bounds the reading from now on.
func (u *upward) last() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.until = time.Now().Add(lastWords)
	_ = u.SetReadDeadline(u.until)
}
