package h2conn

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/kube-zt/zt/pkg/wire"
)

func echo(s *ServerStream) { io.Copy(s, s) }

// TestOptimistic: what is written before the answer reaches the server before the
// server has answered.
func TestOptimistic(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		if _, err := io.ReadFull(r.Body, first); err != nil {
			t.Errorf("before the answer: %v", err)
		}
		<-release
		stream, err := Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer stream.Close()
			stream.Write(append(first, r.Host...))
		}()
		stream.Run()
	}))
	stream := connect(t, server.dial(t))
	stream.Write([]byte("hello"))
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := stream.Response(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("response before the answer: %v", err)
	}
	close(release)
	header, err := stream.Response(t.Context())
	if err != nil || header.Get("Date") == "" {
		t.Errorf("response: %v, %v", header, err)
	}
	if answer, err := io.ReadAll(stream); string(answer) != "helloprod:443" || err != nil {
		t.Errorf("read %q, %v", answer, err)
	}
}

// TestRefused: a refusal reaches whoever waits for it, reads or writes, whole and
// with letters that no header may hold.
func TestRefused(t *testing.T) {
	t.Parallel()
	refusal := &wire.Refusal{
		Reason:   wire.ReasonRevoked,
		Message:  "Sitzung \"ü\" beendet 🚫\r\nSet-Cookie: x",
		Hint:     "kubectl zt login",
		Decision: "d1",
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   *RefusedError
	}{
		"with a reason": {
			func(w http.ResponseWriter, _ *http.Request) { Refuse(w, refusal) },
			&RefusedError{Status: 403, Refusal: refusal},
		},
		"without a reason": {
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
			&RefusedError{Status: 502, Refusal: &wire.Refusal{
				Reason: wire.ReasonInternal, Message: "the gateway answered 502 Bad Gateway", Code: 502,
			}},
		},
		"with a reason that is none": {
			func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(HeaderRefusal, "{"); w.WriteHeader(403) },
			&RefusedError{Status: 403, Refusal: &wire.Refusal{
				Reason: wire.ReasonInternal, Message: "the gateway answered 403 Forbidden", Code: 403,
			}},
		},
		"with an empty reason": {
			func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(HeaderRefusal, "{}"); w.WriteHeader(403) },
			&RefusedError{Status: 403, Refusal: &wire.Refusal{
				Reason: wire.ReasonInternal, Message: "the gateway answered 403 Forbidden", Code: 403,
			}},
		},
		"204 is no stream": {
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
			&RefusedError{Status: 204, Refusal: &wire.Refusal{
				Reason: wire.ReasonInternal, Message: "the gateway answered 204 No Content", Code: 204,
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := serveHTTP(t, test.answer).dial(t)
			stream := connect(t, client)
			check := func(what string, err error) {
				t.Helper()
				var refused *RefusedError
				if !errors.As(err, &refused) {
					t.Fatalf("%s: %v, want a refusal", what, err)
				}
				if diff := cmp.Diff(test.want, refused); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			var err error
			for err == nil { // more than any buffer takes
				_, err = stream.Write(make([]byte, 16<<10))
			}
			check("write", err)
			_, err = stream.Read(make([]byte, 1))
			check("read", err)
			_, err = stream.Response(t.Context())
			check("response", err)
			eventually(t, func() bool { return client.Streams() == 0 })
		})
	}
}

// TestRefuseASCII: nothing but ASCII goes into the header.
func TestRefuseASCII(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Refuse(w, wire.Refuse(wire.ReasonLimit, "", "zu viele Ströme\x7f\n\u2028 🚫"))
	const want = `{"reason":"limit","message":"zu viele Str\u00f6me\u007f\n\u2028 \ud83d\udeab"}`
	if got := w.Header().Get(HeaderRefusal); got != want || w.Code != http.StatusTooManyRequests {
		t.Errorf("status %d, header\n%s\nwant\n%s", w.Code, got, want)
	}
}

// TestServerEndsFirst: a server that can half-close, as net/http's cannot, still
// gets what the client has to say.
func TestServerEndsFirst(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	received := make(chan string, 1)
	go func() { received <- halfClosingServer(far) }()
	client, err := NewClient(near, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stream := connect(t, client)
	if text, err := io.ReadAll(stream); string(text) != "bye" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	for _, text := range []string{"still", " ", "here"} {
		if _, err := io.WriteString(stream, text); err != nil {
			t.Errorf("write after the server's half-close: %v", err)
		}
	}
	stream.CloseWrite()
	if text := <-received; text != "still here" {
		t.Errorf("the server received %q", text)
	}
}

// halfClosingServer speaks just enough HTTP/2 to answer one CONNECT with "bye" and
// a half-close, and returns what it then receives.
func halfClosingServer(conn net.Conn) string {
	defer conn.Close()
	io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
	writes := make(chan func(), 10) // net.Pipe knows no buffer
	defer close(writes)
	go func() {
		for write := range writes {
			write()
		}
	}()
	framer := http2.NewFramer(conn, conn)
	var received []byte
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				writes <- func() { framer.WriteSettings(); framer.WriteSettingsAck() }
			}
		case *http2.HeadersFrame:
			id := frame.StreamID
			writes <- func() {
				framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}, EndHeaders: true}) // :status 200
				framer.WriteData(id, true, []byte("bye"))
			}
		case *http2.DataFrame:
			received = append(received, frame.Data()...)
			if frame.StreamEnded() {
				return string(received)
			}
		}
	}
}

// TestConnectContext: ctx ends an opening that nobody answers, and nothing after.
func TestConnectContext(t *testing.T) {
	t.Parallel()
	entered, answer, left := make(chan bool, 2), make(chan bool), make(chan bool, 1)
	server := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- true
		select {
		case <-answer:
		case <-r.Context().Done():
			left <- true
			return
		}
		stream, err := Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		go func() { defer stream.Close(); echo(stream) }()
		stream.Run()
	}))
	client := server.dial(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	first, err := client.Connect(ctx, "prod:443", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	reason := errors.New("had enough")
	<-entered
	cancel(reason)
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, reason) {
		t.Errorf("read after cancel: %v", err)
	}
	<-left

	ctx, cancel = context.WithCancelCause(t.Context())
	second, err := client.Connect(ctx, "prod:443", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	answer <- true
	second.Response(t.Context())
	cancel(reason)
	second.Write([]byte("x"))
	if _, err := io.ReadFull(second, make([]byte, 1)); err != nil {
		t.Errorf("read of an open stream after cancel: %v", err)
	}
	if _, err := client.Connect(ctx, "prod:443", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("connect with a context that has ended: %v", err)
	}
}

// TestHundredStreams: the hundred and first stream is refused with an error of its
// own instead of a stream that cannot work, and a slot that was given back counts.
func TestHundredStreams(t *testing.T) {
	t.Parallel()
	client := serveStreams(t, echo).dial(t)
	streams := make([]*Stream, MaxStreams)
	for i := range streams {
		streams[i] = connect(t, client)
		if n := client.Streams(); n != i+1 {
			t.Fatalf("%d streams are counted after %d were opened", n, i+1)
		}
	}
	if client.Usable() {
		t.Error("a full connection calls itself usable")
	}
	if _, err := client.Connect(t.Context(), "prod:443", nil); !errors.Is(err, ErrFull) {
		t.Errorf("stream 101: %v, want %v", err, ErrFull)
	}
	for _, stream := range streams { // all work at once
		stream.Write([]byte("x"))
		if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	streams[7].CloseWrite()
	io.Copy(io.Discard, streams[7])
	eventually(t, client.Usable)
	again := connect(t, client)
	again.Write([]byte("x"))
	if _, err := io.ReadFull(again, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// TestRetire: running streams end in peace, new ones go elsewhere, and then the
// connection is closed.
func TestRetire(t *testing.T) {
	t.Parallel()
	server := serveStreams(t, echo)
	client := server.dial(t)
	stream := connect(t, client)
	client.Retire()
	if _, err := client.Connect(t.Context(), "prod:443", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("connect on a retired connection: %v", err)
	}
	stream.Write([]byte("x"))
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Errorf("stream of a retired connection: %v", err)
	}
	stream.CloseWrite()
	io.Copy(io.Discard, stream)
	<-client.Done()

	idle := server.dial(t)
	idle.Retire()
	<-idle.Done()
}

// TestDo: a plain request goes over the same connection as the streams.
func TestDo(t *testing.T) {
	t.Parallel()
	client := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.URL.Path+" "+string(body))
	})).dial(t)
	request, _ := http.NewRequestWithContext(t.Context(), "POST", "https://tunnel.example.com/zt/v1/renew", strings.NewReader("chain"))
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); string(body) != "POST /zt/v1/renew chain" {
		t.Errorf("answer %q", body)
	}
	if err := client.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

// TestKilled: when the connection breaks, every stream fails at once and with
// something else than a proper end, on both sides.
func TestKilled(t *testing.T) {
	t.Parallel()
	serverErrs := make(chan error, 10)
	server := serveStreams(t, func(s *ServerStream) {
		_, err := io.Copy(io.Discard, s)
		serverErrs <- err
	})
	conn, err := net.Dial("tcp", server.addr)
	if err != nil {
		t.Fatal(err)
	}
	client := server.client(t, conn)
	streams := make([]*Stream, 10)
	for i := range streams {
		streams[i] = connect(t, client)
		if _, err := streams[i].Response(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	for _, stream := range streams {
		if _, err := stream.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("client: %v", err)
		}
		if _, err := stream.Write([]byte("x")); err == nil {
			t.Error("client could write")
		}
		if err := <-serverErrs; err == nil {
			t.Error("server read a proper end of file")
		}
	}
	<-client.Done()
	if _, err := client.Connect(t.Context(), "prod:443", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("connect: %v, want %v", err, ErrClosed)
	}
}

// TestPeerVanishes: an idle connection lives on, and a peer that takes
// everything and says nothing any more is noticed within a minute by either side,
// without traffic on a stream.
func TestPeerVanishes(t *testing.T) {
	t.Parallel()
	const limit = time.Minute
	start := func(t *testing.T) (client *Client, stream *Stream, other *ServerStream, c, s *blackHole) {
		a, b := net.Pipe()
		c, s = &blackHole{Conn: a}, &blackHole{Conn: b}
		accepted := make(chan *ServerStream, 1)
		h1 := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stream, err := Accept(w, r)
			if err != nil {
				t.Error(err)
				return
			}
			accepted <- stream
			stream.Run()
		})}
		go serverConfig().ServeConn(s, &http2.ServeConnOpts{BaseConfig: h1})
		client, err := NewClient(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		stream, err = client.Connect(t.Context(), "prod:443", nil)
		if err != nil {
			t.Fatal(err)
		}
		return client, stream, <-accepted, c, s
	}
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			client, stream, other, c, s := start(t)
			time.Sleep(time.Hour) // an idle connection lives on
			begin := time.Now()
			s.vanish()
			if _, err := stream.Read(make([]byte, 1)); err == nil || time.Since(begin) > limit {
				t.Errorf("noticed after %s: %v", time.Since(begin), err)
			}
			<-client.Done()
			other.Close()
			c.Conn.Close()
			s.Conn.Close()
		})
	})
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			client, stream, other, c, s := start(t)
			begin := time.Now()
			c.vanish()
			if _, err := other.Read(make([]byte, 1)); err == nil || time.Since(begin) > limit {
				t.Errorf("noticed after %s: %v", time.Since(begin), err)
			}
			other.Close()
			stream.Close()
			client.Close()
			c.Conn.Close()
			s.Conn.Close()
		})
	})
}

// blackHole is the connection of somebody who may vanish without a word: from then
// on nothing that he writes, not even his end, reaches the other side.
type blackHole struct {
	net.Conn
	gone atomic.Bool
}

func (b *blackHole) vanish() { b.gone.Store(true) }

func (b *blackHole) Write(p []byte) (int, error) {
	if b.gone.Load() {
		return len(p), nil
	}
	return b.Conn.Write(p)
}

func (b *blackHole) Close() error {
	if b.gone.Load() {
		return b.Conn.SetDeadline(time.Unix(1, 0))
	}
	return b.Conn.Close()
}

// eventually waits until condition holds.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("still not so after 10 s")
		}
		time.Sleep(time.Millisecond)
	}
}
