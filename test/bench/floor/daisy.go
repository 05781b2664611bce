package floor

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// BulkHost is the CONNECT target whose bytes the daisy's gateway passes on to the
// upstream's exec, without a proxy in between.
const BulkHost = "bulk.test"

// window is the flow-control window of a stream: larger than what loopback holds
// in flight, so that it never limits.
const window = 4 << 20

// serveDaisyGateway accepts mutual TLS with HTTP/2 and turns each CONNECT stream
// into a connection for the proxy's own TLS in this process.
func serveDaisyGateway(config Config) (string, error) {
	handler, err := newProxy(config)
	if err != nil {
		return "", err
	}
	outer, err := config.Keys.ServerTLS(true, "h2")
	if err != nil {
		return "", err
	}
	inner, err := config.Keys.ServerTLS(false, "h2", "http/1.1")
	if err != nil {
		return "", err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", outer)
	if err != nil {
		return "", err
	}
	accepted := newHandover(listener.Addr())
	go serveHTTP(accepted, inner, handler)
	streams := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		stream := &serverStream{Reader: r.Body, writer: w, flusher: w.(http.Flusher), addr: listener.Addr(), done: make(chan struct{})}
		stream.flusher.Flush()
		if r.Host == BulkHost+":443" {
			bulk(stream, inner, config)
			return
		}
		accepted.conns <- stream
		<-stream.done
	})
	server := &http2.Server{MaxConcurrentStreams: 1000, MaxUploadBufferPerConnection: 16 << 20, MaxUploadBufferPerStream: window}
	go acceptEach(listener, func(conn net.Conn) {
		if err := conn.(*tls.Conn).Handshake(); err != nil {
			conn.Close()
			return
		}
		server.ServeConn(conn, &http2.ServeConnOpts{Handler: streams})
	})
	return listener.Addr().String(), nil
}

// bulk ends the client's TLS on a stream and passes bytes between it and a new
// connection to the upstream, without looking at any.
func bulk(stream net.Conn, inner *tls.Config, config Config) {
	client := tls.Server(stream, inner)
	defer client.Close()
	if err := client.Handshake(); err != nil {
		return
	}
	address, err := hostPort(config.Server)
	if err != nil {
		return
	}
	upstream, err := tls.Dial("tcp", address, upstreamTLS(config.ServerCA, "http/1.1"))
	if err != nil {
		return
	}
	splice(client, upstream)
}

// serverStream is the server's end of a CONNECT stream. It ignores deadlines,
// which only connections that are hijacked would need.
type serverStream struct {
	io.Reader
	addr net.Addr

	mu      sync.Mutex // a write after the handler's return would panic
	closed  bool
	writer  io.Writer
	flusher http.Flusher
	done    chan struct{}
}

func (s *serverStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	n, err := s.writer.Write(p)
	s.flusher.Flush()
	return n, err
}

func (s *serverStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	return nil
}

func (s *serverStream) LocalAddr() net.Addr              { return s.addr }
func (s *serverStream) RemoteAddr() net.Addr             { return s.addr }
func (s *serverStream) SetDeadline(time.Time) error      { return nil }
func (s *serverStream) SetReadDeadline(time.Time) error  { return nil }
func (s *serverStream) SetWriteDeadline(time.Time) error { return nil }

// serveDaisyLaptop accepts CONNECT on loopback and opens a stream on the one warm
// connection each time. It says yes before the gateway did.
func serveDaisyLaptop(config Config) (string, error) {
	outer, err := config.Keys.ClientTLS(true, "h2")
	if err != nil {
		return "", err
	}
	gateway, err := tls.Dial("tcp", config.Next, outer)
	if err != nil {
		return "", err
	}
	connection, err := (&http2.Transport{}).NewClientConn(gateway)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go acceptEach(listener, func(conn net.Conn) {
		defer conn.Close()
		if err := openStream(connection, conn); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	})
	return listener.Addr().String(), nil
}

func openStream(connection *http2.ClientConn, conn net.Conn) error {
	reader, target, err := readConnect(conn)
	if err != nil {
		return err
	}
	response, err := connection.RoundTrip(&http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Host: target},
		Host:   target,
		Header: http.Header{},
		Body:   buffered{Conn: conn, reader: reader},
	})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.CopyBuffer(onlyWriter{conn}, onlyReader{response.Body}, make([]byte, 32<<10))
	return err
}
