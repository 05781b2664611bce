package edge

import (
	"context"
	"net"
	"sync"
)

// Inbox is a net.Listener to which accepted connections are handed, handshake
// done. What goes in must be the bare *tls.Conn, or net/http would not speak
// HTTP/2 on it.
type Inbox struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewInbox returns an open Inbox.
func NewInbox() *Inbox {
	return &Inbox{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Give hands conn to whoever accepts. It blocks until then, and returns false,
// with conn still the caller's, when the inbox was closed or ctx has ended.
func (i *Inbox) Give(ctx context.Context, conn net.Conn) bool {
	select {
	case i.conns <- conn:
		return true
	case <-i.closed:
	case <-ctx.Done():
	}
	return false
}

// Accept implements net.Listener.
func (i *Inbox) Accept() (net.Conn, error) {
	select {
	case conn := <-i.conns:
		return conn, nil
	case <-i.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (i *Inbox) Close() error {
	i.once.Do(func() { close(i.closed) })
	return nil
}

// Addr implements net.Listener; there is none.
func (i *Inbox) Addr() net.Addr { return &net.TCPAddr{} }
