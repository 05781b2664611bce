package h2conn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
)

// serveInside starts a server whose streams carry TLS, which is handed bare to an
// http.Server with handler, as the kube part does.
func serveInside(t testing.TB, handler http.Handler) (outer *testServer, inner func(protocols ...string) *tls.Config) {
	certificate, roots := serverCertificate(t, "prod.example.com")
	listener := &chanListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	outer = serveStreams(t, func(s *ServerStream) {
		secure := tls.Server(s, trust.StreamServer(certificate, nil))
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Errorf("inner handshake: %v", err)
			return
		}
		select {
		case listener.conns <- secure:
			<-s.Done() // http.Server owns it now
		case <-listener.done:
		}
	})
	t.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	return outer, func(protocols ...string) *tls.Config {
		config := trust.UpstreamClient(roots, "prod.example.com", protocols...)
		return config
	}
}

// chanListener is a net.Listener for connections that come from elsewhere.
type chanListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *chanListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *chanListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestUpgradeInside: an HTTP/1.1 upgrade inside TLS inside a stream. Hijack sets a
// deadline in the past to end its background read, and takes it back.
func TestUpgradeInside(t *testing.T) {
	t.Parallel()
	outer, config := serveInside(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		io.Copy(conn, rw)
	}))
	stream := connect(t, outer.dial(t))
	conn := tls.Client(stream, config("http/1.1"))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, "GET /exec HTTP/1.1\r\nHost: prod\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", response, err)
	}
	text := strings.Repeat("all work and no play ", 50_000)
	go func() {
		io.WriteString(conn, text)
		conn.CloseWrite()
	}()
	if echoed, err := io.ReadAll(reader); string(echoed) != text || err != nil {
		t.Errorf("%d of %d bytes came back: %v", len(echoed), len(text), err)
	}
}

// TestHTTP2Inside: HTTP/2 inside TLS inside a stream, many requests at a time, and
// a request that is given up.
func TestHTTP2Inside(t *testing.T) {
	t.Parallel()
	cancelled := make(chan struct{})
	outer, config := serveInside(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/watch" {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(cancelled)
			return
		}
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Proto+" "+r.URL.Path+" "+string(body))
	}))
	client := outer.dial(t)
	inside := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   config("h2"),
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return client.Connect(ctx, addr, nil)
		},
	}}
	defer inside.CloseIdleConnections()
	var requests sync.WaitGroup
	for _, path := range []string{"/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"} {
		requests.Go(func() {
			body := strings.Repeat(path, 100_000)
			response, err := inside.Post("https://prod.example.com"+path, "", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if got, err := io.ReadAll(response.Body); string(got) != "HTTP/2.0 "+path+" "+body || err != nil {
				t.Errorf("%s: %d bytes, %v", path, len(got), err)
			}
		})
	}
	requests.Wait()

	ctx, cancel := context.WithCancel(t.Context())
	request, _ := http.NewRequestWithContext(ctx, "GET", "https://prod.example.com/watch", nil)
	response, err := inside.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	response.Body.Close()
	<-cancelled
}

// TestStalledStream: a stream that nobody reads holds up itself and no other.
func TestStalledStream(t *testing.T) {
	t.Parallel()
	server := serveStreams(t, func(s *ServerStream) {
		first := make([]byte, 1)
		io.ReadFull(s, first)
		if first[0] == 'd' { // send down until it stalls
			s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			fill(s)
		}
		if first[0] == 'u' { // never read
			<-s.Done()
		}
		s.Write(first)
	})
	client := server.dial(t)
	down, up := connect(t, client), connect(t, client)
	down.Write([]byte("d"))
	up.Write([]byte("u"))
	up.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	fill(up)
	for range 20 {
		other := connect(t, client)
		other.SetDeadline(time.Now().Add(10 * time.Second))
		other.Write([]byte("x"))
		if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	up.Abort()
}

// TestLateWrites: whoever writes while and after the handler returns gets an error
// and never a panic.
func TestLateWrites(t *testing.T) {
	t.Parallel()
	var writing sync.WaitGroup
	server := serveStreams(t, func(s *ServerStream) {
		for range 4 {
			writing.Go(func() {
				fill(s)
				if _, err := s.Write([]byte("late")); err == nil {
					t.Error("a write after the end succeeded")
				}
			})
		}
		io.ReadFull(s, make([]byte, 1))
		// Close while four others write: the handler returns under their hands.
	})
	client := server.dial(t)
	for i := range 40 {
		stream := connect(t, client)
		stream.Write([]byte("x"))
		if i%2 == 0 {
			io.CopyN(io.Discard, stream, 100_000)
			stream.Abort()
		} else {
			io.Copy(io.Discard, stream)
		}
	}
	writing.Wait()
}

// TestNoMixUp: buffers go from stream to stream, bytes never do, however streams end.
func TestNoMixUp(t *testing.T) {
	t.Parallel()
	server := serveStreams(t, func(s *ServerStream) {
		own := make([]byte, 1)
		if _, err := io.ReadFull(s, own); err == nil {
			text := bytes.Repeat(own, 30_000)
			for err == nil {
				_, err = s.Write(text)
			}
		}
	})
	client := server.dial(t)
	var streams sync.WaitGroup
	for i := range 60 {
		streams.Go(func() {
			own := byte(i)
			stream, err := client.Connect(t.Context(), "prod:443", nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer stream.Abort() // in the middle of a frame
			stream.Write([]byte{own})
			buffer := make([]byte, 40_000)
			for range 10 + i {
				n, err := stream.Read(buffer)
				if other := bytes.Trim(buffer[:n], string([]byte{own})); err != nil || len(other) != 0 {
					t.Errorf("stream %d read %d bytes of others, %v", i, len(other), err)
					return
				}
			}
		})
	}
	streams.Wait()
}
