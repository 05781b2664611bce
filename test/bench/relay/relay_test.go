package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const delay = 20 * time.Millisecond

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers with what it read, closes its side when the client closed its own.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().String()
}

func start(t *testing.T, target string) (addr string, stop func()) {
	t.Helper()
	r, err := Listen(t.Context(), target, delay)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return r.Addr(), stop
}

// A first exchange costs two round trips, the next one.
func TestDelay(t *testing.T) {
	addr, stop := start(t, echo(t))
	defer stop()
	begin := time.Now()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, trips := range []time.Duration{2, 1, 1} {
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		// A busy machine may be late, the relay may never be early.
		if took, least := time.Since(begin), trips*2*delay; took < least || took > least+time.Second {
			t.Errorf("took %s, want %s", took, least)
		}
		begin = time.Now()
	}
}

func TestBytesAndHalfClose(t *testing.T) {
	addr, stop := start(t, echo(t))
	defer stop()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := make([]byte, 8<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("sent %d bytes, got %d, equal %t, %v", len(sent), len(got), bytes.Equal(got, sent), err)
	}
}

func TestStopWithConnectionsOpen(t *testing.T) {
	addr, stop := start(t, echo(t))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the relay")
	}
}
