package h2conn

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// TestForwardAndDraw: what travels past the buffers arrives as it was sent, also
// what was in the buffer before, in pieces of every size and both ways at once.
func TestForwardAndDraw(t *testing.T) {
	t.Parallel()
	server := serveStreams(t, func(s *ServerStream) {
		io.Copy(s, s)
		s.CloseWrite()
	})
	client := server.dial(t)
	text := make([]byte, 3<<20)
	rand.Read(text)
	for name, cut := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r },
		"bytes": func(r io.Reader) io.Reader {
			return io.MultiReader(iotest.OneByteReader(io.LimitReader(r, 1000)), r)
		},
		"halves": iotest.HalfReader,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := connect(t, client)
			defer stream.Close()
			if _, err := stream.Write(text[:100]); err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				srcErr, streamErr := stream.Draw(cut(bytes.NewReader(text[100:])))
				stream.CloseWrite()
				sent <- errors.Join(srcErr, streamErr)
			}()
			var got bytes.Buffer
			if streamErr, dstErr := stream.Forward(&got); streamErr != nil || dstErr != nil {
				t.Fatal(streamErr, dstErr)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), text) {
				t.Fatalf("%d bytes came back as %d others", len(text), got.Len())
			}
		})
	}
}

// TestForwardAndDrawEnd: each end names the side that failed, and nobody waits for
// a side that is gone.
func TestForwardAndDrawEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	start := func(t *testing.T) *Stream {
		client := serveStreams(t, func(s *ServerStream) { io.Copy(s, s) }).dial(t)
		stream := connect(t, client)
		t.Cleanup(func() { stream.Close() })
		return stream
	}
	t.Run("src fails", func(t *testing.T) {
		t.Parallel()
		stream := start(t)
		if srcErr, streamErr := stream.Draw(iotest.ErrReader(broken)); srcErr != broken || streamErr != nil {
			t.Error(srcErr, streamErr)
		}
		if _, err := stream.Write([]byte("more")); err != nil {
			t.Errorf("the stream cannot be written to any more: %v", err)
		}
	})
	t.Run("dst fails", func(t *testing.T) {
		t.Parallel()
		stream := start(t)
		if _, err := stream.Write([]byte("text")); err != nil {
			t.Fatal(err)
		}
		if streamErr, dstErr := stream.Forward(failing{broken}); streamErr != nil || dstErr != broken {
			t.Error(streamErr, dstErr)
		}
	})
	t.Run("abort", func(t *testing.T) {
		t.Parallel()
		stream := start(t)
		silent, other := net.Pipe()
		defer other.Close()
		ended := make(chan error, 2)
		go func() {
			_, streamErr := stream.Draw(silent)
			ended <- streamErr
		}()
		go func() {
			streamErr, _ := stream.Forward(io.Discard)
			ended <- streamErr
		}()
		stream.Abort()
		if err := <-ended; err == nil { // Forward's: Draw still reads
			t.Error("an aborted stream ended properly")
		}
		silent.Close()
		if err := <-ended; err == nil {
			t.Error("an aborted stream ended properly")
		}
	})
}

// TestDrawLetsGo: when Draw has returned, nobody reads its source any more.
func TestDrawLetsGo(t *testing.T) {
	t.Parallel()
	client := serveStreams(t, func(*ServerStream) {}).dial(t) // ends each stream at once
	for range 50 {
		stream := connect(t, client)
		near, far := net.Pipe()
		source := &watched{Reader: near}
		go func() {
			for { // slowly, until near is closed
				time.Sleep(time.Millisecond)
				if _, err := far.Write([]byte("late")); err != nil {
					return
				}
			}
		}()
		if _, streamErr := stream.Draw(source); streamErr == nil {
			t.Error("the stream has not ended")
		}
		if source.busy.Load() {
			t.Fatal("the source is still being read")
		}
		stream.Close()
		near.Close()
		far.Close()
	}
}

type watched struct {
	io.Reader
	busy atomic.Bool
}

func (w *watched) Read(b []byte) (int, error) {
	w.busy.Store(true)
	defer w.busy.Store(false)
	return w.Reader.Read(b)
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
