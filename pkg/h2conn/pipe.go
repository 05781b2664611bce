package h2conn

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeSize is how much one direction of a stream buffers, in bytes: four TLS
// records, so that what piles up behind a slow frame leaves as one large one.
const pipeSize = 64 << 10

// storage holds the buffers of pipes that are not empty just now. An idle stream
// has none.
var storage = sync.Pool{New: func() any { return new([pipeSize]byte) }}

// pipe is one direction of a stream: a bounded buffer with a reading and a
// writing end, each with a deadline. One of the two ends belongs to the owner of
// the net.Conn, the other to the goroutine that moves bytes from or to HTTP/2.
type pipe struct {
	// writing keeps the bytes of concurrent Writes together.
	writing sync.Mutex

	mu       sync.Mutex
	readable sync.Cond // something was added, or reading has ended
	writable sync.Cond // something was taken, or writing has ended
	ring     *[pipeSize]byte
	start, n int   // what is in the ring
	peeked   bool  // a part of the ring is lent to the caller of peek
	source   *pull // what is read, without the ring, once that is empty; or nil
	readErr  error // what Read returns now, whatever is in the ring
	endErr   error // what Read returns once the ring is empty
	writeErr error // what Write returns now

	readDeadline, writeDeadline deadline
}

func (p *pipe) init() {
	p.readable.L = &p.mu
	p.writable.L = &p.mu
	p.readDeadline.init(p, &p.readable)
	p.writeDeadline.init(p, &p.writable)
}

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	chunk, err := p.await()
	if err != nil || len(b) == 0 {
		return 0, err
	}
	n := copy(b, chunk)
	if n == len(chunk) && n < len(b) && n < p.n {
		n += copy(b[n:], p.ring[:p.n-n]) // the ring has wrapped around
	}
	p.take(n)
	return n, nil
}

// peek returns what can be read without copying, and waits until there is
// something. It stays valid until discard. There must be one reader only.
func (p *pipe) peek() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	chunk, err := p.await()
	p.peeked = err == nil
	return chunk, err
}

// discard drops what peek has returned. With keep, the storage is not used again:
// whom it was given to may still be looking at it.
func (p *pipe) discard(n int, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peeked = false
	if keep {
		p.ring, p.start, p.n = nil, 0, 0
		return
	}
	p.take(min(n, p.n))
	if p.n == 0 {
		p.release()
	}
}

// await waits until something can be read and returns the first part of it that
// lies in one piece. p.mu is held.
func (p *pipe) await() ([]byte, error) {
	for {
		switch {
		case p.readErr != nil:
			return nil, p.readErr
		case p.readDeadline.passed:
			return nil, os.ErrDeadlineExceeded
		case p.n > 0:
			return p.ring[p.start:min(p.start+p.n, pipeSize)], nil
		case p.endErr != nil:
			return nil, p.endErr
		case p.source != nil:
			return nil, errSource
		}
		p.readable.Wait()
	}
}

// take drops the first n bytes. p.mu is held.
func (p *pipe) take(n int) {
	if n == 0 {
		return
	}
	p.start = (p.start + n) % pipeSize
	if p.n -= n; p.n == 0 {
		p.release()
	}
	p.writable.Signal()
}

// release empties the ring and gives the storage back, unless a part of it is
// lent: then discard does. p.mu is held.
func (p *pipe) release() {
	p.start, p.n = 0, 0
	if p.ring != nil && !p.peeked {
		storage.Put(p.ring)
		p.ring = nil
	}
}

// Write implements io.Writer. It blocks while the buffer is full.
func (p *pipe) Write(b []byte) (int, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.writeErr != nil:
			return written, p.writeErr
		case p.writeDeadline.passed:
			return written, os.ErrDeadlineExceeded
		case len(b) == 0:
			return written, nil
		}
		if n := p.add(b); n > 0 {
			b = b[n:]
			written += n
			p.readable.Signal()
			if len(b) == 0 {
				return written, nil
			}
		}
		p.writable.Wait()
	}
}

// add copies as much of b as fits. p.mu is held.
func (p *pipe) add(b []byte) int {
	if p.ring == nil {
		p.ring = storage.Get().(*[pipeSize]byte)
	}
	b = b[:min(len(b), pipeSize-p.n)]
	end := (p.start + p.n) % pipeSize
	n := copy(p.ring[end:], b)
	copy(p.ring[:], b[n:])
	p.n += len(b)
	return len(b)
}

// errSource says that the pipe is empty and that its source is to be read.
var errSource = errors.New("h2conn: read the source")

// attach lets l be read once the ring is empty. The error is that of a Write.
func (p *pipe) attach(l *pull) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeErr != nil {
		return p.writeErr
	}
	p.source = l
	p.wake()
	return nil
}

// end is the writer's farewell: reads return err once they have had everything.
func (p *pipe) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.source != nil {
		p.source.end(err, net.ErrClosed)
	}
	if p.endErr == nil {
		p.endErr = err
	}
	if p.writeErr == nil {
		p.writeErr = net.ErrClosed
		if err != io.EOF {
			p.writeErr = err
		}
	}
	p.wake()
}

// abandon is the reader's farewell: what is in the buffer is dropped, reads
// return readErr, and writes fail with writeErr.
func (p *pipe) abandon(readErr, writeErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.source != nil {
		p.source.end(readErr, writeErr)
	}
	if p.readErr == nil {
		p.readErr = readErr
	}
	if p.writeErr == nil {
		p.writeErr = writeErr
	}
	p.release()
	p.wake()
}

// wake lets everybody look again. p.mu is held.
func (p *pipe) wake() {
	p.readable.Broadcast()
	p.writable.Broadcast()
}

// deadline of one end of a pipe.
type deadline struct {
	pipe   *pipe
	cond   *sync.Cond // whom to wake
	at     time.Time
	timer  *time.Timer
	passed bool
}

func (d *deadline) init(p *pipe, cond *sync.Cond) { d.pipe, d.cond = p, cond }

// set replaces the deadline, also one that has passed; the zero time is none.
func (d *deadline) set(at time.Time) {
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = at
	left := time.Until(at)
	d.passed = !at.IsZero() && left <= 0
	switch {
	case d.passed:
		d.cond.Broadcast()
	case at.IsZero():
	case d.timer == nil:
		d.timer = time.AfterFunc(left, d.fire)
	default:
		d.timer.Reset(left)
	}
}

// fire may come late, when another deadline has been set: it looks at the time.
func (d *deadline) fire() {
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	if !d.at.IsZero() && time.Until(d.at) <= 0 {
		d.passed = true
		d.cond.Broadcast()
	}
}
