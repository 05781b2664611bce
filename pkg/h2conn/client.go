package h2conn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Errors of Client.Connect and Client.Do that say: try another connection.
var (
	// ErrFull says that the peer allows no more streams on this connection.
	ErrFull = errors.New("h2conn: all streams of the connection are taken")
	// ErrClosed says that the connection is gone or going.
	ErrClosed = errors.New("h2conn: the connection is closed")
)

// Sizes and times of the client: BenchmarkBulk measures the ones,
// TestPeerVanishes the others.
const (
	// clientFrame is the longest frame that a client reads, in bytes.
	clientFrame = 64 << 10
	// clientHeaders is the longest header list that a client reads, in bytes.
	clientHeaders = 64 << 10
	// readIdle is how long a connection may be silent before it is pinged, and
	// pingTimeout how long an answer may take: a peer that vanished is noticed
	// after 30 s.
	readIdle    = 15 * time.Second
	pingTimeout = 15 * time.Second
	// forceClose is how long TLS may take for its farewell.
	forceClose = 250 * time.Millisecond
)

// Options of a Client. The zero value is useful.
type Options struct {
	// UserAgent is sent with each request that has none; empty sends none.
	UserAgent string
}

// Client is one warm HTTP/2 connection on which streams are opened. It is safe
// for concurrent use.
type Client struct {
	conn *watchedConn
	h2   *http2.ClientConn
	opts Options

	mu      sync.Mutex
	running int // streams and requests that have not ended
	retired bool
}

// NewClient speaks HTTP/2 on conn, which it owns from now on, also when it
// returns an error. A *tls.Conn must have had its handshake and chosen h2.
func NewClient(conn net.Conn, opts Options) (*Client, error) {
	if secure, ok := conn.(*tls.Conn); ok {
		if protocol := secure.ConnectionState().NegotiatedProtocol; protocol != http2.NextProtoTLS {
			conn.Close()
			return nil, fmt.Errorf("h2conn: the peer chose protocol %q, want h2", protocol)
		}
	}
	watched := &watchedConn{Conn: conn, done: make(chan struct{})}
	transport := &http2.Transport{
		DisableCompression: true,
		MaxReadFrameSize:   clientFrame,
		MaxHeaderListSize:  clientHeaders,
		ReadIdleTimeout:    readIdle,
		PingTimeout:        pingTimeout,
	}
	h2, err := transport.NewClientConn(watched)
	if err != nil {
		watched.Close()
		return nil, fmt.Errorf("h2conn: %w", err)
	}
	return &Client{conn: watched, h2: h2, opts: opts}, nil
}

// Do sends one request on the connection. The answer's body must be closed.
func (c *Client) Do(request *http.Request) (*http.Response, error) {
	if err := c.reserve(); err != nil {
		return nil, err
	}
	response, err := c.h2.RoundTrip(request)
	if err != nil {
		c.release()
		return nil, err
	}
	response.Body = &countedBody{ReadCloser: response.Body, release: sync.OnceFunc(c.release)}
	return response, nil
}

// Connect opens a stream to authority, HOST:PORT, and returns at once: what is
// written to it travels along with the CONNECT, before anybody has answered. Who
// wants to know first calls Stream.Response. When ctx ends before the answer, the
// stream fails; afterwards ctx means nothing. The caller owns the stream and must
// close it. ErrFull and ErrClosed say that nothing was sent.
func (c *Client) Connect(ctx context.Context, authority string, header http.Header) (*Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.reserve(); err != nil {
		return nil, err
	}
	return c.open(ctx, authority, header), nil
}

// reserve takes a slot for a stream, so that Streams counts it from now on.
func (c *Client) reserve() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return ErrClosed
	}
	if c.h2.ReserveNewRequest() {
		c.running++
		return nil
	}
	if state := c.h2.State(); state.Closed || state.Closing {
		return ErrClosed
	}
	return ErrFull
}

// release says that what reserve was called for has ended.
func (c *Client) release() {
	c.mu.Lock()
	c.running--
	last := c.retired && c.running == 0
	c.mu.Unlock()
	if last {
		c.Close()
	}
}

// Streams is how many streams are open or being opened, to be compared with the
// 100 that an edge allows: open another connection in good time.
func (c *Client) Streams() int {
	state := c.h2.State()
	return state.StreamsActive + state.StreamsReserved + state.StreamsPending
}

// Usable reports whether Connect may succeed: the connection is up, nobody has
// said that it is leaving, and a stream is free.
func (c *Client) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.retired && c.h2.CanTakeNewRequest()
}

// Ping waits for the peer's answer to a ping.
func (c *Client) Ping(ctx context.Context) error { return c.h2.Ping(ctx) }

// Done is closed when the connection is gone, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.conn.done }

// Retire lets the running streams end and opens no more; then the connection is
// closed. It does not block.
func (c *Client) Retire() {
	c.mu.Lock()
	c.retired = true
	idle := c.running == 0
	c.mu.Unlock()
	if idle {
		c.Close()
	}
}

// Close ends the connection and all its streams at once.
func (c *Client) Close() error { return c.h2.Close() }

// countedBody tells when an answer was read.
type countedBody struct {
	io.ReadCloser
	release func()
}

func (b *countedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// watchedConn tells when it is closed, which net/http2 does in every case, but
// tells nobody.
type watchedConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

// Close closes the connection, with TLS's farewell if the peer still takes it.
func (c *watchedConn) Close() error {
	c.once.Do(func() { close(c.done) })
	if secure, ok := c.Conn.(*tls.Conn); ok {
		defer time.AfterFunc(forceClose, func() { secure.NetConn().Close() }).Stop()
	}
	return c.Conn.Close()
}
