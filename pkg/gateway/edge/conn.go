package edge

import (
	"errors"
	"net"
	"sync"
)

// peekedConn is a connection of which the ClientHello was read already and is
// read again by whom it was meant for. It tells when it is closed.
type peekedConn struct {
	net.Conn
	seen   int // bytes read before the hello was whole
	unread []byte

	closed chan struct{}
	leave  func() // called at the close
	once   sync.Once
	err    error
}

func newPeekedConn(conn net.Conn, leave func()) *peekedConn {
	return &peekedConn{Conn: conn, closed: make(chan struct{}), leave: leave}
}

// Read implements net.Conn.
func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil // the connection may live for days
	}
	return n, nil
}

// Close implements net.Conn.
func (c *peekedConn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		c.leave()
		close(c.closed)
	})
	return c.err
}

// CloseWrite passes a half-close on.
func (c *peekedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("the connection knows no half-close")
}

// counter counts what is read.
type counter struct {
	net.Conn
	n *int
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	*c.n += n
	return n, err
}
