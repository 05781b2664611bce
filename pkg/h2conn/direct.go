package h2conn

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// errLeft says that nobody moves bytes for a pipe any more.
var errLeft = errors.New("h2conn: the bytes do not come this way any more")

// direct is the state of a stream whose owner uses net/http's own stream.
type direct struct {
	reading, writing atomic.Bool   // a Read, a Write is under way
	handed           chan struct{} // closed when Write may use the ResponseWriter
	on               atomic.Bool   // the same

	sending sync.Mutex // held while somebody uses the ResponseWriter
	over    bool       // the handler is about to return, after which nobody may
}

// GoDirect makes Read and Write use net/http's own stream from now on: two
// goroutines and two copies fewer for every piece. The price: a deadline that
// passes while a Read or a Write is under way ends the stream, and CloseWrite ends
// reading at once. So it is for HTTP/2 in TLS, which wants neither, and not for
// HTTP/1.1, whose upgrades interrupt a Read and go on.
//
// It waits until what was written before is with net/http, and must be called once,
// while no Write is under way and the handler is in Run or on its way there.
func (s *ServerStream) GoDirect() {
	s.direct.handed = make(chan struct{})
	s.in.dismiss(&s.in.readDeadline, func() {
		if s.direct.reading.Load() {
			go s.abort(os.ErrDeadlineExceeded) // not here, where the pipe is locked
		}
	}, false)
	s.out.dismiss(&s.out.writeDeadline, func() {
		if s.direct.writing.Load() {
			go s.abort(os.ErrDeadlineExceeded)
		}
	}, true)
	select {
	case <-s.direct.handed:
	case <-s.done:
	}
}

// dismiss lets go whoever moves the pipe's bytes, at once or when he is asked.
func (p *pipe) dismiss(d *deadline, late func(), atOnce bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving, p.left, d.late = true, atOnce, late
	p.wake()
}

// leave reports whether the one who asks was dismissed.
func (p *pipe) leave() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leaving {
		p.left = true
		p.wake()
	}
	return p.left
}

// handOver lets Write use the ResponseWriter, and returns when the stream has ended
// and nobody uses it any more; io.EOF is a proper end.
func (s *ServerStream) handOver() error {
	s.direct.on.Store(true)
	close(s.direct.handed)
	err := s.out.awaitEnd()
	s.direct.sending.Lock() // at the latest when the stream is aborted
	defer s.direct.sending.Unlock()
	s.direct.over = true
	return err
}

// awaitEnd waits until the pipe has ended.
func (p *pipe) awaitEnd() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.readErr != nil:
			return p.readErr
		case p.endErr != nil:
			return p.endErr
		}
		p.readable.Wait()
	}
}

func (s *ServerStream) writeDirect(b []byte) (int, error) {
	s.direct.sending.Lock()
	defer s.direct.sending.Unlock()
	s.direct.writing.Store(true) // before looking at the deadline, which looks at it
	defer s.direct.writing.Store(false)
	if err := s.out.writeFailed(); err != nil {
		return 0, err
	}
	if s.direct.over {
		return 0, net.ErrClosed
	}
	n, err := s.w.Write(b)
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		s.fail(errEnded)
		if why := s.out.writeFailed(); why != nil {
			err = why
		}
	}
	return n, err
}

func (s *ServerStream) readDirect(b []byte) (int, error) {
	s.direct.reading.Store(true)
	defer s.direct.reading.Store(false)
	if err := s.in.readFailed(); err != nil {
		return 0, err
	}
	n, err := s.request.Body.Read(b)
	if why := s.in.readFailed(); why != nil {
		return 0, why
	}
	return n, err
}

// readFailed is why nothing is to be read now.
func (p *pipe) readFailed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readDeadline.passed {
		return os.ErrDeadlineExceeded
	}
	return p.readErr
}

// writeFailed is why nothing is to be written now.
func (p *pipe) writeFailed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeDeadline.passed {
		return os.ErrDeadlineExceeded
	}
	return p.writeErr
}
