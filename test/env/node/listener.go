package node

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// lingerLimit is how long a closed connection waits for its peer's end.
const lingerLimit = time.Second

// listener gives every connection a context that ends when the peer is gone.
// net/http has none to offer once a connection was hijacked, and without it a
// command whose caller was cut would run on unseen.
type listener struct {
	net.Listener
	ctx  context.Context // the base of the connections' contexts
	open sync.WaitGroup
}

func newListener(ctx context.Context, l net.Listener) *listener {
	return &listener{Listener: l, ctx: ctx}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &conn{TCPConn: c.(*net.TCPConn), listener: l}
	conn.ctx, conn.gone = context.WithCancel(l.ctx)
	l.open.Add(1)
	// The end of the node must reach a handler that is blocked on the connection.
	context.AfterFunc(conn.ctx, func() { _ = conn.Close() })
	return conn, nil
}

// wait returns when all connections are closed.
func (l *listener) wait() { l.open.Wait() }

type conn struct {
	*net.TCPConn
	ctx      context.Context
	gone     context.CancelFunc
	listener *listener
	once     sync.Once
}

// Read sees the peer go: someone reads all the time, net/http between requests
// and during them, the stream multiplexer afterwards.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	// A deadline is how net/http takes the connection back from its own reader.
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone()
	}
	return n, err
}

// Close lets the peer read what was written, for at most lingerLimit, unless the
// node ends. A plain close with input unread resets the connection, and the peer
// throws away what it has not read yet: the exit code of a command that left its
// input unread came out as 0.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.gone()
		go func() {
			defer c.listener.open.Done()
			defer c.TCPConn.Close()
			defer context.AfterFunc(c.listener.ctx, func() { _ = c.TCPConn.Close() })()
			_ = c.CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(lingerLimit))
			_, _ = io.Copy(io.Discard, c.TCPConn)
		}()
	})
	return nil
}

// connContext ends the contexts of a connection's requests with the connection.
func connContext(base context.Context, c net.Conn) context.Context {
	ctx, cancel := context.WithCancel(base)
	context.AfterFunc(c.(*tls.Conn).NetConn().(*conn).ctx, cancel)
	return ctx
}
