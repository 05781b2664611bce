package h2conn

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestDirect: nothing is lost, doubled or turned round when the owner takes over in
// the middle of a conversation, whichever side speaks first.
func TestDirect(t *testing.T) {
	t.Parallel()
	text := make([]byte, 2<<20)
	rand.Read(text)
	for _, before := range []int{0, 1, smallRead, pipeSize + 1} {
		failed := make(chan error, 1)
		client := serveStreams(t, func(s *ServerStream) {
			head := make([]byte, before)
			_, err := io.ReadFull(s, head)
			_, werr := s.Write(head)
			s.GoDirect()
			_, cerr := io.Copy(s, s)
			failed <- errors.Join(err, werr, cerr)
		}).dial(t)
		stream := connect(t, client)
		defer stream.Close()
		go func() {
			stream.Write(text)
			stream.CloseWrite()
		}()
		got, err := io.ReadAll(stream)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes before: %d of %d came back: %v", before, len(got), len(text), err)
		}
		if err := <-failed; err != nil {
			t.Errorf("%d bytes before: the server's end: %v", before, err)
		}
	}
}

// TestDirectEnds: whatever ends a stream ends a Read and a Write that wait, and a
// Write that comes too late is an error and no panic.
func TestDirectEnds(t *testing.T) {
	t.Parallel()
	past := time.Unix(1, 0)
	for name, tc := range map[string]struct {
		end  func(*ServerStream)
		want error // nil: any
	}{
		"close":    {func(s *ServerStream) { s.Close() }, net.ErrClosed},
		"abort":    {func(s *ServerStream) { s.Abort() }, net.ErrClosed},
		"deadline": {func(s *ServerStream) { s.SetDeadline(past) }, os.ErrDeadlineExceeded},
		"later":    {func(s *ServerStream) { s.SetDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			type result struct{ read, write, late error }
			results := make(chan result, 1)
			client := serveStreams(t, func(s *ServerStream) {
				s.GoDirect()
				var r result
				reading, writing := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(reading)
					_, r.read = io.Copy(io.Discard, readerOnly{s})
				}()
				go func() {
					defer close(writing)
					for r.write == nil { // until the client's window is full
						_, r.write = s.Write(make([]byte, 64<<10))
					}
				}()
				time.Sleep(50 * time.Millisecond) // let both come to wait
				tc.end(s)
				if name == "close" {
					s.Abort() // the client never reads: linger would be waited for
				}
				<-reading
				<-writing
				s.Close()
				<-s.Done()
				_, r.late = s.Write([]byte("late"))
				results <- r
			}).dial(t)
			stream := connect(t, client)
			defer stream.Close()
			select {
			case r := <-results:
				for what, err := range map[string]error{"read": r.read, "write": r.write} {
					if !errors.Is(err, tc.want) {
						t.Errorf("%s: %v, want %v", what, err, tc.want)
					}
				}
				if r.late == nil {
					t.Error("a write after the end was taken")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("somebody still waits")
			}
		})
	}
}

// TestDirectDeadline: one that passes while nobody waits can be taken back.
func TestDirectDeadline(t *testing.T) {
	t.Parallel()
	client := serveStreams(t, func(s *ServerStream) {
		s.GoDirect()
		s.SetDeadline(time.Unix(1, 0))
		if _, err := s.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		s.SetDeadline(time.Time{})
		io.Copy(s, s)
	}).dial(t)
	stream := connect(t, client)
	defer stream.Close()
	stream.Write([]byte("text"))
	stream.CloseWrite()
	if got, err := io.ReadAll(stream); string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
}

type readerOnly struct{ io.Reader }
