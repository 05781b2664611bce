package evidence

import (
	"errors"
	"net"
)

// replayConn is a net.Conn of which some bytes were read already, and are read
// again. Everything else, deadlines included, is the connection's own.
type replayConn struct {
	net.Conn
	read []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil // it may be large, and the connection may live for days
	}
	return n, nil
}

// CloseWrite passes the half-close on.
func (c *replayConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("the connection knows no half-close")
}
