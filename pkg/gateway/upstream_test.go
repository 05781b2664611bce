package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// line is a way to an upstream that can be broken.
type line struct {
	t        *testing.T
	to       string
	address  string
	mu       sync.Mutex
	listener net.Listener
	silent   bool
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l := &line{t: t, to: to, address: "127.0.0.1:0", conns: make(map[net.Conn]bool)}
	l.up(false)
	t.Cleanup(func() {
		l.down()
		l.running.Wait()
	})
	return l
}

// up makes the line accept; a silent one swallows what it is sent.
func (l *line) up(silent bool) {
	l.t.Helper()
	l.down()
	listener, err := net.Listen("tcp", l.address)
	must(l.t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.address, l.silent = listener, listener.Addr().String(), silent
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.carry(conn, silent) })
		}
	})
}

// down makes the line refuse, and cuts what is on it.
func (l *line) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	for conn := range l.conns {
		conn.Close()
	}
}

// open is how many connections there are.
func (l *line) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func (l *line) carry(conn net.Conn, silent bool) {
	l.mu.Lock()
	l.conns[conn] = true
	l.mu.Unlock()
	defer func() {
		conn.Close()
		l.mu.Lock()
		delete(l.conns, conn)
		l.mu.Unlock()
	}()
	if silent {
		io.Copy(io.Discard, conn)
		return
	}
	upstream, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer upstream.Close()
	go func() {
		io.Copy(upstream, conn)
		upstream.Close()
	}()
	io.Copy(conn, upstream)
}

func TestV089(t *testing.T) {
	t.Parallel()
	server := newUpstreamServer(t, true)
	way := newLine(t, server.server.Listener.Addr().String())
	r := newRig(t, rigOptions{url: "https://" + way.address, ca: server.caPEM()})
	alice := r.person("alice")
	const path = "/api/v1/namespaces/default/pods"
	if got := alice.get(path); got.code != http.StatusOK {
		t.Fatalf("while all is well: %d %s", got.code, got.body)
	}

	way.down()
	began := time.Now()
	if got := alice.get(path); got.code != http.StatusBadGateway || time.Since(began) > 5*time.Second {
		t.Errorf("refused: %d after %v, want 502 at once: %s", got.code, time.Since(began), got.body)
	}

	way.up(true)
	began = time.Now()
	if got := alice.get(path); got.code != http.StatusGatewayTimeout || time.Since(began) > 10*time.Second {
		t.Errorf("blackholed: %d after %v, want 504 within 10 s: %s", got.code, time.Since(began), got.body)
	}

	client := alice.http("h2")
	before := runtime.NumGoroutine()
	rounds := 5000
	if os.Getenv("ZT_SOAK") == "" {
		rounds /= 20
	}
	for range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := client.Do(alice.request(http.MethodGet, path, nil).WithContext(ctx)); err == nil {
			t.Error("an answer out of a black hole")
		}
		cancel()
	}
	r.eventually("dials whose client has gone are given up", func() bool {
		return way.open() <= 5 && runtime.NumGoroutine() <= before+25
	})

	way.up(false)
	r.eventually("it heals by itself", func() bool { return alice.get(path).code == http.StatusOK })
}
