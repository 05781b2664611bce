// Package relay stands in for distance: a TCP relay on loopback that delivers
// every byte a fixed time after it came, in both directions, and charges the round
// trip of the TCP handshake that loopback does not show. There is no loss and no
// limit to the rate.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// buffered is how many chunks may be under way in one direction: with reads of
// 64 KiB, far more than what a delay of 25 ms holds back of what the bench sends.
const buffered = 1024

// Relay forwards the connections of one listener to one address.
type Relay struct {
	target   string
	delay    time.Duration // each way
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed
}

// Listen opens a relay on a free loopback port to target. Run serves it.
func Listen(ctx context.Context, target string, delay time.Duration) (*Relay, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", target, err)
	}
	return &Relay{target: target, delay: delay, listener: listener, conns: make(map[net.Conn]struct{})}, nil
}

// Addr is where the relay listens, as host:port.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Run relays until ctx ends, then closes everything and waits.
func (r *Relay) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	defer r.running.Wait()
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("relay to %s: %w", r.target, err)
		}
		r.running.Go(func() { r.serve(ctx, conn) })
	}
}

// serve relays one connection. The kernel has answered the client's SYN at once;
// over a distance the client could not send before a whole round trip, so what it
// sends is taken to have been sent then.
func (r *Relay) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	established := time.Now().Add(2 * r.delay)
	server, err := new(net.Dialer).DialContext(ctx, "tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !r.own(client, server) {
		return
	}
	defer r.disown(client, server)
	var directions sync.WaitGroup
	directions.Go(func() { r.carry(server, client, established) })
	directions.Go(func() { r.carry(client, server, time.Time{}) })
	directions.Wait()
}

type chunk struct {
	due  time.Time
	data []byte
}

// carry moves bytes from src to dst until the end of src, which arrives late as
// well. Nothing counts as sent before notBefore.
func (r *Relay) carry(dst, src net.Conn, notBefore time.Time) {
	way := make(chan chunk, buffered)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(way)
		for {
			buf := make([]byte, 64<<10)
			n, err := src.Read(buf)
			sent := time.Now()
			if sent.Before(notBefore) {
				sent = notBefore
			}
			way <- chunk{due: sent.Add(r.delay), data: buf[:n]}
			if err != nil {
				return
			}
		}
	})
	broken := false
	for c := range way {
		if broken {
			continue // so that the reader never waits for us
		}
		time.Sleep(time.Until(c.due))
		if len(c.data) == 0 {
			break
		}
		if _, err := dst.Write(c.data); err != nil {
			broken = true
			src.Close()
		}
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	for range way { // what follows an end of stream: nothing
	}
	reading.Wait()
}

func (r *Relay) own(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		return false
	}
	for _, c := range conns {
		r.conns[c] = struct{}{}
	}
	return true
}

func (r *Relay) disown(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
	}
}

func (r *Relay) close() {
	r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
	r.conns = nil
}
