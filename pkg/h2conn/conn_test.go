package h2conn

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// TestNetConn holds both ends against the rules that every net.Conn must keep.
func TestNetConn(t *testing.T) {
	for _, name := range []string{"client first", "server first"} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				accepted := make(chan *ServerStream)
				server := serveStreams(t, func(s *ServerStream) {
					accepted <- s
					<-s.Done()
				})
				client := server.dial(t)
				stream, err := client.Connect(context.Background(), "prod:443", nil)
				if err != nil {
					return nil, nil, nil, err
				}
				other := <-accepted
				stop = func() {
					stream.Close()
					other.Close()
					client.Close()
					server.server.Close()
				}
				if name == "client first" {
					return stream, other, stop, nil
				}
				return other, stream, stop, nil
			})
		})
	}
}

// TestClientHalfClose: after the client's half-close the whole reply arrives.
func TestClientHalfClose(t *testing.T) {
	t.Parallel()
	reply := make([]byte, 5<<20) // more than any window or buffer
	rand.Read(reply)
	got := make(chan []byte, 1)
	server := serveStreams(t, func(s *ServerStream) {
		request, err := io.ReadAll(s)
		if err != nil {
			t.Errorf("server: %v", err)
		}
		got <- request
		s.Write(reply)
	})
	stream := connect(t, server.dial(t))
	stream.Write([]byte("request"))
	stream.CloseWrite()
	answer, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(answer, reply) {
		t.Errorf("reply of %d bytes arrived as %d, %v", len(reply), len(answer), err)
	}
	if request := <-got; string(request) != "request" {
		t.Errorf("server read %q", request)
	}
	if _, err := stream.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after CloseWrite: %v, want net.ErrClosed", err)
	}
}

// TestServerHalfClose: after the server's half-close the client reads to the end
// and then learns that it cannot write.
func TestServerHalfClose(t *testing.T) {
	t.Parallel()
	reply := make([]byte, 1<<20)
	rand.Read(reply)
	server := serveStreams(t, func(s *ServerStream) {
		s.Write(reply)
		s.CloseWrite()
		<-s.Done()
	})
	stream := connect(t, server.dial(t))
	answer, err := io.ReadAll(stream)
	if err != nil || !bytes.Equal(answer, reply) {
		t.Errorf("reply of %d bytes arrived as %d, %v", len(reply), len(answer), err)
	}
	stream.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for err == nil {
		_, err = stream.Write(make([]byte, 1024))
	}
	if !errors.Is(err, errEnded) {
		t.Errorf("write after the server's end: %v, want %v", err, errEnded)
	}
}

// TestCloseDelivers: what was written before Close arrives, in both directions.
func TestCloseDelivers(t *testing.T) {
	t.Parallel()
	text := make([]byte, pipeSize)
	rand.Read(text)
	received := make(chan []byte, 1)
	server := serveStreams(t, func(s *ServerStream) {
		s.Write(text)
		b, _ := io.ReadAll(s)
		received <- b
	})
	client := server.dial(t)

	up := connect(t, client)
	up.Write(text)
	up.Close()
	if b := <-received; !bytes.Equal(b, text) {
		t.Errorf("up: %d of %d bytes", len(b), len(text))
	}

	down := connect(t, client)
	down.CloseWrite()
	<-received // the server is closing
	if b, err := io.ReadAll(down); err != nil || !bytes.Equal(b, text) {
		t.Errorf("down: %d of %d bytes, %v", len(b), len(text), err)
	}
}

// TestDeadlines: a deadline that has passed can be taken back, and the stream goes
// on where it was.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	ends := func(t *testing.T) (client, server net.Conn) {
		accepted := make(chan *ServerStream, 1)
		s := serveStreams(t, func(s *ServerStream) {
			accepted <- s
			<-s.Done()
		})
		stream := connect(t, s.dial(t))
		return stream, <-accepted
	}
	check := func(t *testing.T, a, b net.Conn) {
		// A Read that is waiting when the deadline is moved into the past ends.
		result := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			result <- err
		}()
		a.SetReadDeadline(time.Unix(1, 0))
		if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("waiting read: %v", err)
		}
		a.SetReadDeadline(time.Time{})
		b.Write([]byte("x"))
		if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
			t.Fatalf("read after the deadline was taken back: %v", err)
		}

		// A Write that waits for the peer to read ends, and what it took arrives.
		a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		var sent int
		var err error
		for err == nil {
			var n int
			n, err = a.Write(make([]byte, 16<<10))
			sent += n
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("waiting write: %v", err)
		}
		a.SetWriteDeadline(time.Time{})
		go func() {
			n, err := a.Write([]byte("end"))
			if n != 3 || err != nil {
				t.Errorf("write after the deadline was taken back: %d, %v", n, err)
			}
		}()
		all := make([]byte, sent+3)
		if _, err := io.ReadFull(b, all); err != nil || string(all[sent:]) != "end" {
			t.Errorf("the peer read %q at the end, %v", all[sent:], err)
		}
		a.Close()
		b.Close()
	}
	t.Run("client", func(t *testing.T) {
		client, server := ends(t)
		check(t, client, server)
	})
	t.Run("server", func(t *testing.T) {
		client, server := ends(t)
		check(t, server, client)
	})
}

// TestAbort: an abort is no end of file, does not wait for anybody, and drops what
// was not sent.
func TestAbort(t *testing.T) {
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		for name, before := range map[string]func(*ServerStream){
			"idle":    func(s *ServerStream) { s.Write([]byte("x")) },
			"blocked": func(s *ServerStream) { s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); fill(s) },
		} {
			t.Run(name, func(t *testing.T) {
				aborted := make(chan time.Duration, 1)
				server := serveStreams(t, func(s *ServerStream) {
					before(s)
					start := time.Now()
					s.Abort()
					<-s.Done()
					aborted <- time.Since(start)
				})
				stream := connect(t, server.dial(t))
				if took := <-aborted; took > 2*time.Second {
					t.Errorf("abort took %s", took)
				}
				if _, err := io.Copy(io.Discard, stream); err == nil {
					t.Error("the client read a proper end of file")
				}
			})
		}
	})
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		ended := make(chan error, 1)
		server := serveStreams(t, func(s *ServerStream) {
			_, err := io.Copy(io.Discard, s)
			ended <- err
		})
		stream := connect(t, server.dial(t))
		stream.Write([]byte("x"))
		stream.Response(t.Context())
		stream.Abort()
		if err := <-ended; err == nil {
			t.Error("the server read a proper end of file")
		}
	})
}

func fill(w io.Writer) {
	for {
		if _, err := w.Write(make([]byte, 16<<10)); err != nil {
			return
		}
	}
}
