package h2conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Limits of a server, per connection; MaxStreams is exported for those who count.
const (
	// MaxStreams is how many streams a client may have at a time.
	MaxStreams = 100
	// serverFrame is the longest frame that a server reads, in bytes: with its
	// header four TLS records, none of which is a scrap. A client of net/http2 keeps
	// a buffer of that size for each stream.
	serverFrame = 64<<10 - 9
	// serverStreamWindow and serverWindow are how many bytes a client may send
	// that nobody has read yet, on a stream and on all of them together.
	serverStreamWindow = 2 << 20
	serverWindow       = 8 << 20
	// serverLinger is how long a closed stream may take to deliver what was
	// written, to a client that reads slowly, say to a pager.
	serverLinger = 30 * time.Second
)

// ConfigureServer makes s serve HTTP/2 for streams: with their limits, windows
// and pings. s must have no read or write timeout, which would end streams.
func ConfigureServer(s *http.Server) error {
	if s.ReadTimeout != 0 || s.WriteTimeout != 0 {
		return errors.New("h2conn: a server of streams cannot have a read or write timeout")
	}
	return http2.ConfigureServer(s, serverConfig())
}

func serverConfig() *http2.Server {
	return &http2.Server{
		MaxConcurrentStreams:         MaxStreams,
		MaxReadFrameSize:             serverFrame,
		MaxUploadBufferPerConnection: serverWindow,
		MaxUploadBufferPerStream:     serverStreamWindow,
		ReadIdleTimeout:              readIdle,
		PingTimeout:                  pingTimeout,
	}
}

// ServerStream is the server's end of a CONNECT stream, a net.Conn.
type ServerStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	request *http.Request
	in, out pipe
	done    chan struct{}

	mu      sync.Mutex
	running bool // the handler is in Run: control may be used
	ended   bool // Run is over
	aborted bool
	closed  *time.Timer // runs for serverLinger from Close on
}

// Accept accepts r, a CONNECT over HTTP/2, and answers 200 at once. Bytes move
// while the handler is in Run, which it must call, and after which it must return:
//
//	stream, err := h2conn.Accept(w, r)
//	if err != nil { … }
//	go func() { defer stream.Close(); serve(stream) }()
//	stream.Run()
//
// The caller owns the stream and must close it.
func Accept(w http.ResponseWriter, r *http.Request) (*ServerStream, error) {
	if r.Method != http.MethodConnect || r.ProtoMajor != 2 || r.Header.Get(":protocol") != "" {
		return nil, fmt.Errorf("h2conn: %s over %s is no stream", r.Method, r.Proto)
	}
	s := &ServerStream{
		w:       w,
		control: http.NewResponseController(w),
		request: r,
		done:    make(chan struct{}),
	}
	s.in.init()
	s.out.init()
	w.WriteHeader(http.StatusOK)
	if err := s.control.Flush(); err != nil {
		return nil, fmt.Errorf("h2conn: accept stream: %w", err)
	}
	return s, nil
}

// Run moves bytes until the stream has ended: everything was written after Close
// or CloseWrite, the client has gone, or Abort was called. It must be called once,
// by the handler, which must then return; nobody else touches its ResponseWriter.
func (s *ServerStream) Run() {
	defer close(s.done)
	stop := context.AfterFunc(s.request.Context(), func() { s.fail(errEnded) })
	defer stop()

	var reading sync.WaitGroup
	reading.Go(func() { s.in.end(move(&s.in, s.request.Body)) })

	s.begin()
	err := s.write()
	s.finish()

	if err != io.EOF {
		s.fail(errEnded)
	}
	s.out.abandon(errEnded, errEnded)
	s.in.end(errEnded)
	s.request.Body.Close() // ends the reading
	reading.Wait()
}

// write sends what is written to the stream. It returns io.EOF at a proper end.
func (s *ServerStream) write() error {
	for {
		chunk, err := s.out.peek()
		if err != nil {
			return err
		}
		_, err = s.w.Write(chunk)
		if err == nil {
			err = s.control.Flush()
		}
		// After an error net/http2 may still be sending the chunk.
		s.out.discard(len(chunk), err != nil)
		if err != nil {
			return err
		}
	}
}

// begin opens the time in which control may be used, which is while the handler
// has not returned. An abort that came earlier is made good.
func (s *ServerStream) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
	if s.aborted {
		s.reset()
	}
}

func (s *ServerStream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.ended = false, true
	if s.closed != nil {
		s.closed.Stop()
	}
}

// reset lets net/http2 reset the stream, which also ends a Write that waits for
// the client. s.mu is held.
func (s *ServerStream) reset() {
	if s.running {
		// A deadline that has passed cannot be taken back: just what we need.
		_ = s.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// fail ends both directions with err.
func (s *ServerStream) fail(err error) {
	s.in.end(err)
	s.out.abandon(err, err)
}

// Done is closed when Run has returned.
func (s *ServerStream) Done() <-chan struct{} { return s.done }

// Read implements net.Conn.
func (s *ServerStream) Read(b []byte) (int, error) { return s.in.Read(b) }

// Write implements net.Conn. As with a socket, it returns when b was taken over,
// which says nothing about its arrival.
func (s *ServerStream) Write(b []byte) (int, error) { return s.out.Write(b) }

// CloseWrite ends the stream once everything was sent. What had arrived by then
// can still be read; what the client sends later is lost.
func (s *ServerStream) CloseWrite() error {
	s.out.end(io.EOF)
	return nil
}

// Close ends the stream: what was written is still sent, to a client that takes
// it within half a minute. It does not block, and may be called again.
func (s *ServerStream) Close() error {
	s.in.abandon(net.ErrClosed, net.ErrClosed)
	s.out.end(io.EOF)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil && !s.ended {
		s.closed = time.AfterFunc(serverLinger, s.Abort)
	}
	return nil
}

// Abort ends the stream at once and drops what was not sent yet: for a peer whose
// right has ended.
func (s *ServerStream) Abort() {
	s.in.abandon(net.ErrClosed, net.ErrClosed)
	s.out.abandon(net.ErrClosed, net.ErrClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	s.reset()
}

// LocalAddr is the address that the client's connection came in on.
func (s *ServerStream) LocalAddr() net.Addr {
	if addr, ok := s.request.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return addr
	}
	return &net.TCPAddr{}
}

// RemoteAddr is the client's.
func (s *ServerStream) RemoteAddr() net.Addr {
	if addr, err := netip.ParseAddrPort(s.request.RemoteAddr); err == nil {
		return net.TCPAddrFromAddrPort(addr)
	}
	return &net.TCPAddr{}
}

// SetDeadline implements net.Conn.
func (s *ServerStream) SetDeadline(t time.Time) error {
	s.in.readDeadline.set(t)
	s.out.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *ServerStream) SetReadDeadline(t time.Time) error {
	s.in.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *ServerStream) SetWriteDeadline(t time.Time) error {
	s.out.writeDeadline.set(t)
	return nil
}
