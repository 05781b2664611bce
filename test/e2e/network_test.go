package e2e

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// relay stands between laptop and gateway and can do what networks do.
type relay struct {
	target string
	ln     net.Listener
	conns  sync.WaitGroup

	mu      sync.Mutex
	current *atomic.Bool // of the connections made now: true when they are dead
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{target: target, ln: ln, current: new(atomic.Bool)}
	r.conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			dead := r.current
			r.mu.Unlock()
			r.conns.Go(func() { r.carry(conn, dead) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.lose()
	})
	return r
}

// lose makes every connection of now a dead one: nothing passes, and nobody is
// told, as when a laptop wakes up in another network.
func (r *relay) lose() {
	r.mu.Lock()
	r.current.Store(true)
	r.current = new(atomic.Bool)
	r.mu.Unlock()
}

func (r *relay) carry(in net.Conn, dead *atomic.Bool) {
	defer in.Close()
	out, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer out.Close()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			defer func() { done <- struct{}{} }()
			_, _ = io.Copy(pair[0], gate{pair[1], dead})
		}()
	}
	<-done
	if !dead.Load() {
		return
	}
	<-done
}

// gate passes nothing on once it is dead, and does not end.
type gate struct {
	net.Conn
	dead *atomic.Bool
}

func (g gate) Read(b []byte) (int, error) {
	for {
		n, err := g.Conn.Read(b)
		if !g.dead.Load() || err != nil {
			return n, err
		}
	}
}

// throughRelay is a laptop whose way to the gateway leads through a relay.
func throughRelay(t *testing.T) (*stack.Stack, *relay, *stack.Laptop) {
	t.Helper()
	s := own(t, stack.Options{}, idp.Options{})
	r := startRelay(t, s.Address)
	s.LoginURL = strings.Replace(s.LoginURL, s.Address, r.ln.Addr().String(), 1)
	return s, r, connected(t, s, "alice")
}

// A laptop that wakes up in another network goes on without a new login: the
// dead connection is noticed and another one made.
func TestNetworkChange(t *testing.T) {
	t.Parallel()
	_, r, alice := throughRelay(t)
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Fatalf("get pods: %v", res)
	}
	opens := alice.BrowserOpens()
	r.lose()
	eventually(t, 90*time.Second, "kubectl works again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		return alice.Kubectl(ctx, "get", "pods").Code == 0
	})
	if n := alice.BrowserOpens() - opens; n != 0 {
		t.Errorf("the browser was opened %d times", n)
	}
}

// A gateway that was restarted, and one that was killed, is found again without
// a new login: sessions are signed artefacts, not memory.
func TestGatewayRestart(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	opens := alice.BrowserOpens()
	for _, how := range []string{"stopped", "killed"} {
		if how == "stopped" {
			if err := s.StopGateway(t.Context()); err != nil {
				t.Errorf("drain: %v", err)
			}
		} else {
			if err := s.Gateway.Signal(9); err != nil {
				t.Fatal(err)
			}
			_ = s.Gateway.Wait(t.Context())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		res := alice.Kubectl(ctx, "get", "pods")
		cancel()
		if res.Code == 0 || !strings.Contains(res.Stderr, "zt:") {
			t.Errorf("gateway %s: want a text of zt's, got %v", how, res)
		}
		if err := s.StartGateway(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, 45*time.Second, "kubectl works again after the gateway was "+how, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			return alice.Kubectl(ctx, "get", "pods").Code == 0
		})
	}
	if n := alice.BrowserOpens() - opens; n != 0 {
		t.Errorf("the browser was opened %d times", n)
	}
}
