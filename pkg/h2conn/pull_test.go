package h2conn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// pulled is what became of a Pull.
type pulled struct{ srcErr, dstErr error }

// pulling pulls one end of a new connection; the other is returned.
func pulling(t *testing.T, stream *Stream) (far *net.TCPConn, near net.Conn, done <-chan pulled) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); near.Close() })
	result := make(chan pulled, 1)
	go func() {
		srcErr, dstErr := stream.Pull(near)
		result <- pulled{srcErr, dstErr}
	}()
	return dialled.(*net.TCPConn), near, result
}

// stillReadable: whoever gets a source back can go on with it, and finds there what
// had not been taken yet.
func stillReadable(t *testing.T, far io.Writer, near net.Conn) {
	t.Helper()
	if err := near.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write([]byte("mine")); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for !bytes.HasSuffix(got, []byte("mine")) {
		more := make([]byte, 16)
		n, err := near.Read(more)
		got = append(got, more[:n]...)
		if err != nil {
			t.Fatalf("after Pull: %q %v", got, err)
		}
	}
}

func result(t *testing.T, done <-chan pulled) pulled {
	t.Helper()
	select {
	case p := <-done:
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("Pull does not return")
		return pulled{}
	}
}

// TestPull: what was written comes first, then all of the source, whose end is
// the stream's, while the other direction goes on.
func TestPull(t *testing.T) {
	t.Parallel()
	server := serveStreams(t, func(s *ServerStream) {
		got, err := io.ReadAll(s)
		if err != nil {
			t.Errorf("server: %v", err)
		}
		_, _ = s.Write(got)
	})
	client := server.dial(t)
	stream := connect(t, client)
	if _, err := stream.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	far, _, done := pulling(t, stream)
	want := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // more than any window
	go func() {
		_, _ = far.Write(want)
		_ = far.CloseWrite()
	}()
	got, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(got, append([]byte("first"), want...)) {
		t.Errorf("%d bytes came back, want %d: %v", len(got), len(want)+5, err)
	}
	if p := result(t, done); p.srcErr != nil || p.dstErr != nil {
		t.Errorf("Pull: %v", p)
	}
	eventually(t, func() bool { return client.Streams() == 0 })
}

// TestPullInterrupted: whatever ends the stream gives the source back, also from a
// Read that waits, and leaves nobody behind.
func TestPullInterrupted(t *testing.T) {
	t.Parallel()
	stay := func(s *ServerStream) { _, _ = io.Copy(io.Discard, s) }
	for name, test := range map[string]struct {
		serve func(*ServerStream)
		end   func(*Stream, *Client)
	}{
		"closed":          {stay, func(s *Stream, _ *Client) { s.Close() }},
		"half-closed":     {stay, func(s *Stream, _ *Client) { _ = s.CloseWrite() }},
		"aborted":         {stay, func(s *Stream, _ *Client) { s.Abort() }},
		"connection gone": {stay, func(_ *Stream, c *Client) { c.Close() }},
		"the other side has ended": {func(s *ServerStream) {
			_, _ = io.ReadFull(s, make([]byte, 5))
		}, func(*Stream, *Client) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := serveStreams(t, test.serve).dial(t)
			stream := connect(t, client)
			far, near, done := pulling(t, stream)
			if _, err := far.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Response(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.end(stream, client)
			if p := result(t, done); p.dstErr == nil || p.srcErr != nil {
				t.Errorf("Pull: %v, want an error of the stream", p)
			}
			stillReadable(t, far, near)
			stream.Close()
			eventually(t, func() bool { return client.Streams() == 0 })
		})
	}
}

// TestPullRefused: the refusal of the CONNECT is what Pull returns, whether it
// comes before or while the source is read.
func TestPullRefused(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"before": true, "meanwhile": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := make(chan struct{})
			client := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				<-now
				Refuse(w, &wire.Refusal{Reason: wire.ReasonRevoked, Message: "over"})
			})).dial(t)
			stream := connect(t, client)
			if before {
				close(now)
				if _, err := stream.Response(t.Context()); err == nil {
					t.Fatal("no refusal")
				}
			}
			far, near, done := pulling(t, stream)
			if !before {
				close(now)
			}
			var refused *RefusedError
			if p := result(t, done); !errors.As(p.dstErr, &refused) || refused.Refusal.Reason != wire.ReasonRevoked {
				t.Errorf("Pull: %v, want the refusal", p)
			}
			stillReadable(t, far, near)
			eventually(t, func() bool { return client.Streams() == 0 })
		})
	}
}

// TestPullSourceFails: the source's own error is told apart.
func TestPullSourceFails(t *testing.T) {
	t.Parallel()
	client := serveStreams(t, func(s *ServerStream) { _, _ = io.Copy(io.Discard, s) }).dial(t)
	stream, err := client.Connect(context.Background(), "prod:443", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, near, done := pulling(t, stream)
	near.Close()
	if p := result(t, done); !errors.Is(p.srcErr, net.ErrClosed) || p.dstErr != nil {
		t.Errorf("Pull: %v, want the source's error", p)
	}
	stream.Abort()
	eventually(t, func() bool { return client.Streams() == 0 })
}
