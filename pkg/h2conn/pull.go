package h2conn

import (
	"io"
	"sync"
	"time"
)

// Source is what [Stream.Pull] reads from: a connection, or something in front of
// one. A read deadline that has passed must end a Read that waits.
type Source interface {
	io.Reader
	SetReadDeadline(t time.Time) error
}

// Pull sends what src gives until it ends, fails, or the other side wants no more,
// and says which side it was that failed; at a proper end of src, after which
// nothing can be written any more, neither did. When it returns, nobody reads src.
//
// net/http2 reads src itself: the bytes pass neither a buffer nor a goroutine of
// this package, and pile up where they came from while a frame is on its way. What
// was written before goes first. Write deadlines do not apply, and Write must not
// be called meanwhile. To get src back from a Read that waits, its deadline is set
// to the past; the caller sets it anew if it wants to read on.
func (s *Stream) Pull(src Source) (srcErr, dstErr error) {
	l := &pull{src: src, done: make(chan struct{})}
	if err := s.out.attach(l); err != nil {
		return nil, s.refused(err)
	}
	<-l.done
	if l.dstErr != nil {
		return nil, s.refused(l.dstErr)
	}
	return l.srcErr, nil
}

// pull is a Source in the hands of net/http2.
type pull struct {
	src  Source
	done chan struct{} // closed when nobody reads src any more

	srcErr, dstErr error // for Pull, once done

	mu       sync.Mutex
	reading  bool
	ended    bool
	farewell error // what net/http2 reads at the end
}

// Read is net/http2's.
func (l *pull) Read(b []byte) (int, error) {
	l.mu.Lock()
	if l.ended {
		defer l.mu.Unlock()
		return 0, l.farewell
	}
	l.reading = true
	l.mu.Unlock()
	n, err := l.src.Read(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading = false
	switch {
	case l.ended: // meanwhile, and end has left the rest to us
		err = l.farewell
		close(l.done)
	case err != nil:
		l.ended, l.farewell = true, err
		if err != io.EOF {
			l.srcErr = err
		}
		close(l.done)
	}
	return n, err
}

// end gives src back: net/http2 reads farewell from now on, and Pull returns
// dstErr.
func (l *pull) end(farewell, dstErr error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended, l.farewell, l.dstErr = true, farewell, dstErr
	if !l.reading {
		close(l.done)
		return
	}
	_ = l.src.SetReadDeadline(time.Unix(1, 0)) // Read closes done
}
