package h2conn

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// linger is how long a stream that its client has closed may take to send what
// was written and to see the other side's end; then it is reset.
const linger = 5 * time.Second

// errEnded is what a Write fails with when the other side wants no more.
var errEnded = errors.New("h2conn: the other side has ended the stream")

// Stream is the client's end of a CONNECT stream, a net.Conn. If the answer to
// the CONNECT is a refusal, reading and writing fail with its *RefusedError.
type Stream struct {
	conn    net.Conn
	cancel  context.CancelCauseFunc
	in, out pipe

	answered chan struct{} // closed once header and err are set
	header   http.Header
	err      error

	sent     chan struct{} // closed when net/http2 wants no more of out
	sentOnce sync.Once

	mu     sync.Mutex
	ended  bool
	closed *time.Timer // runs for linger from Close on
}

// open starts the stream for which a slot was reserved.
func (c *Client) open(ctx context.Context, authority string, header http.Header) *Stream {
	header = header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", c.opts.UserAgent)
	}
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &Stream{
		conn:     c.conn,
		cancel:   cancel,
		answered: make(chan struct{}),
		sent:     make(chan struct{}),
	}
	s.in.init()
	s.out.init()
	request := (&http.Request{
		Method:        http.MethodConnect,
		URL:           &url.URL{Host: authority},
		Host:          authority,
		Header:        header,
		Body:          (*requestBody)(s),
		ContentLength: -1,
	}).WithContext(streamCtx)
	// This goroutine ends with the stream, and Close sees to that.
	go func() {
		stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
		response, err := c.h2.RoundTrip(request)
		stop()
		if cause := context.Cause(streamCtx); err != nil && cause != nil {
			err = cause
		}
		s.run(response, err)
		cancel(net.ErrClosed)
		c.release()
	}()
	return s
}

// run takes the answer to the CONNECT and moves what arrives, until the stream
// has ended in both directions.
func (s *Stream) run(response *http.Response, err error) {
	if err == nil && response.StatusCode != http.StatusOK {
		err = refusedError(response)
		response.Body.Close()
	}
	if err == nil {
		s.header = response.Header
	}
	s.err = err
	close(s.answered)
	if err == nil {
		err = move(&s.in, response.Body)
	}
	s.in.end(err)
	if err == io.EOF {
		// The other side has finished, and may still be listening: only when
		// net/http2 is done with the other direction, too, the stream is over.
		<-s.sent
	} else {
		s.out.abandon(err, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.closed != nil {
		s.closed.Stop()
	}
}

// Response waits until the other side has answered the CONNECT and returns the
// answer's header. The error is a *RefusedError if it refused.
func (s *Stream) Response(ctx context.Context) (http.Header, error) {
	select {
	case <-s.answered:
		return s.header, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Read implements net.Conn.
func (s *Stream) Read(b []byte) (int, error) { return s.in.Read(b) }

// Write implements net.Conn. As with a socket, it returns when b was taken over,
// which says nothing about its arrival.
func (s *Stream) Write(b []byte) (int, error) {
	n, err := s.out.Write(b)
	return n, s.refused(err)
}

// refused is err, or the refusal behind it. Nobody wants the rest: if that is
// because of a refusal, it is known soon.
func (s *Stream) refused(err error) error {
	if err == errEnded {
		if <-s.answered; s.err != nil {
			return s.err
		}
	}
	return err
}

// CloseWrite says that nothing more will be written. Reading goes on.
func (s *Stream) CloseWrite() error {
	s.out.end(io.EOF)
	return nil
}

// Close ends the stream: what was written is still sent, what arrives is dropped.
// It does not block, and may be called again.
func (s *Stream) Close() error {
	s.in.abandon(net.ErrClosed, net.ErrClosed)
	s.out.end(io.EOF)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil && !s.ended {
		s.closed = time.AfterFunc(linger, s.Abort)
	}
	return nil
}

// Abort ends the stream at once and drops what was not sent yet.
func (s *Stream) Abort() {
	s.in.abandon(net.ErrClosed, net.ErrClosed)
	s.out.abandon(net.ErrClosed, net.ErrClosed)
	s.cancel(net.ErrClosed)
}

// LocalAddr is the connection's.
func (s *Stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr is the connection's.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	s.in.readDeadline.set(t)
	s.out.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.in.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.out.writeDeadline.set(t)
	return nil
}

// requestBody is the end of s.out that net/http2 reads.
type requestBody Stream

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.out.Read(p)
	if err == errSource {
		return b.out.source.Read(p)
	}
	return n, err
}

// Close is called when net/http2 wants no more: because the stream is over, was
// refused or failed.
func (b *requestBody) Close() error {
	b.out.abandon(errEnded, errEnded)
	b.sentOnce.Do(func() { close(b.sent) })
	return nil
}
