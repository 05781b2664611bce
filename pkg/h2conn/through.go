package h2conn

import (
	"errors"
	"io"
)

// errThrough tells a reader that the bytes are at the source, not in the ring.
var errThrough = errors.New("h2conn: read from the source")

// forward writes to dst everything that is written to the pipe, until the pipe
// has ended or dst fails, and says which of the two it was; at a proper end it was
// neither. Once the ring is empty bytes go to dst by the goroutine that has them:
// nobody is woken and nothing is copied on the way. Nobody else may read.
func (p *pipe) forward(dst io.Writer) (srcErr, dstErr error) {
	for {
		chunk, srcErr, dstErr := p.peekFor(dst)
		if chunk == nil {
			return srcErr, dstErr
		}
		_, err := dst.Write(chunk)
		p.discard(len(chunk), false)
		if err != nil {
			return nil, err
		}
	}
}

// peekFor is peek while the ring holds something. From then on writes go to dst,
// and it waits for the end, which is nil on both sides at a proper one.
func (p *pipe) peekFor(dst io.Writer) (chunk []byte, srcErr, dstErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.readErr != nil:
			return nil, p.readErr, nil
		case p.through != nil:
			return nil, nil, p.through
		case p.n > 0:
			p.peeked = true
			return p.ring[p.start:min(p.start+p.n, pipeSize)], nil, nil
		case p.endErr == io.EOF:
			return nil, nil, nil
		case p.endErr != nil:
			return nil, p.endErr, nil
		}
		p.sink = dst
		p.readable.Wait()
	}
}

// writeThrough hands b to the sink. p.mu is held, but not while the sink works.
func (p *pipe) writeThrough(b []byte) (int, error) {
	sink := p.sink
	p.mu.Unlock()
	n, err := sink.Write(b)
	p.mu.Lock()
	if err != nil {
		p.fall(err)
	}
	return n, err
}

// draw makes the pipe's reader read src itself, once the ring is empty, until src
// or the pipe has ended, and says which of the two it was; at a proper end of src
// it was neither. It does not end the pipe. A Read of src that is under way is
// waited for: whoever ends the pipe also ends that. Nobody else may write.
func (p *pipe) draw(src io.Reader) (srcErr, dstErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.source = src
	p.readable.Signal()
	for p.source != nil && p.writeErr == nil {
		p.writable.Wait()
	}
	p.source = nil
	for p.drawing {
		p.writable.Wait()
	}
	switch {
	case p.through == io.EOF:
		return nil, nil
	case p.through != nil:
		return p.through, nil
	}
	return nil, p.writeErr
}

// readThrough reads from the source. p.mu is held, but not while the source is
// waited for. What the source ends with is for draw alone.
func (p *pipe) readThrough(b []byte) (int, error) {
	for p.source != nil {
		source := p.source
		p.drawing = true
		p.mu.Unlock()
		n, err := source.Read(b)
		p.mu.Lock()
		p.drawing = false
		p.writable.Broadcast()
		if err != nil {
			p.fall(err)
		}
		if p.readErr != nil {
			return 0, p.readErr
		}
		if n > 0 {
			return n, nil
		}
	}
	_, err := p.await()
	return 0, err
}

// fall ends the way past the ring. p.mu is held.
func (p *pipe) fall(err error) {
	p.sink, p.source, p.through = nil, nil, err
	p.wake()
}
