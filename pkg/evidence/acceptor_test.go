package evidence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// gate is an acceptor of a test with what belongs to it.
type gate struct {
	*Acceptor
	trust, server *authority
}

func newGate(t testing.TB) *gate {
	ca, server := newAuthority(t), newAuthority(t)
	return &gate{trust: ca, server: server, Acceptor: &Acceptor{
		TrustDomain: domain,
		Audience:    cluster,
		ServerName:  name,
		Roots:       ca.pool,
		Certificate: server.server(t, name),
		Replay:      new(ReplayCache),
	}}
}

// client is the TLS of a kubectl that trusts g's cluster.
func (g *gate) client(change ...func(*tls.Config)) *tls.Config {
	config := trust.UpstreamClient(g.server.pool(), name, "h2", "http/1.1")
	for _, c := range change {
		c(config)
	}
	return config
}

// accepted is what came of one stream.
type accepted struct {
	peer   *Peer
	err    error // of Accept
	client error // of the handshake and one byte each way
	state  tls.ConnectionState
}

// visit lets a client come through send to g, and echoes one byte if it gets in.
func (g *gate) visit(t testing.TB, config *tls.Config, send func(net.Conn, *Hello) error) accepted {
	t.Helper()
	client, server := pair(t)
	var out accepted
	done := make(chan struct{})
	go func() {
		defer close(done)
		var secure *tls.Conn
		secure, out.peer, out.err = g.Accept(t.Context(), server)
		if secure != nil {
			defer secure.Close()
			out.state = secure.ConnectionState()
			io.Copy(secure, io.LimitReader(secure, 1))
		}
	}()
	secure := tls.Client(&agentConn{Conn: client, send: send}, config)
	if out.client = secure.HandshakeContext(t.Context()); out.client == nil {
		secure.Write([]byte("x"))
		_, out.client = io.ReadFull(secure, make([]byte, 1))
	}
	client.Close()
	<-done
	return out
}

// TestAccept: a genuine peer gets in, and is who his certificate says.
func TestAccept(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	out := g.visit(t, g.client(), func(conn net.Conn, h *Hello) error { return plain(conn, l.prove(t, h.Message), h) })
	if out.err != nil || out.client != nil {
		t.Fatal(out.err, out.client)
	}
	if out.peer.Refusal != nil || out.peer.Direct() {
		t.Errorf("peer %+v", out.peer)
	}
	want, err := trust.ParseTrustCertificate(l.chain[0], domain)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.peer.Proof.Identity); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	if out.state.Version != tls.VersionTLS13 || out.state.NegotiatedProtocol != "h2" || out.state.HelloRetryRequest {
		t.Errorf("state %+v", out.state)
	}
}

// TestGenuineButRefused: who is genuine and must not pass gets his handshake and is
// told why.
func TestGenuineButRefused(t *testing.T) {
	t.Parallel()
	revoked := wire.Refuse(wire.ReasonRevoked, "", "revoked")
	for name, test := range map[string]struct {
		certificate func(*x509.Certificate)
		proof       func(*ProofRequest)
		gate        func(*Acceptor)
		client      func(*tls.Config)
		want        wire.Reason
	}{
		"proof expired":              {proof: func(r *ProofRequest) { r.Now = r.Now.Add(-2 * time.Minute) }, want: wire.ReasonProofExpired},
		"proof too far ahead":        {proof: func(r *ProofRequest) { r.Now = r.Now.Add(30 * time.Second) }, want: wire.ReasonClockSkew},
		"preface of another cluster": {proof: func(r *ProofRequest) { r.Audience = "other" }, want: wire.ReasonWrongCluster},
		"certificate expired":        {certificate: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, want: wire.ReasonSessionEnded},
		"certificate not yet valid":  {certificate: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, want: wire.ReasonClockSkew},
		"revoked":                    {gate: func(a *Acceptor) { a.Check = func(*Proof) *wire.Refusal { return revoked } }, want: wire.ReasonRevoked},
		"another name": {
			gate: func(a *Acceptor) { a.ServerName = "dev.example.com" },
			want: wire.ReasonWrongHost,
		},
		"clock of the gateway": {
			gate: func(a *Acceptor) { a.Now = func() time.Time { return time.Now().Add(10 * time.Minute) } },
			want: wire.ReasonProofExpired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			var changes []func(*x509.Certificate)
			if test.certificate != nil {
				changes = append(changes, test.certificate)
			}
			l := newLaptop(t, g.trust, changes...)
			if test.gate != nil {
				test.gate(g.Acceptor)
			}
			out := g.visit(t, g.client(), func(conn net.Conn, h *Hello) error {
				if test.proof == nil {
					return plain(conn, l.prove(t, h.Message), h)
				}
				return plain(conn, l.prove(t, h.Message, test.proof), h)
			})
			if out.err != nil || out.client != nil {
				t.Fatalf("server %v, client %v", out.err, out.client)
			}
			if out.peer.Refusal == nil || out.peer.Refusal.Reason != test.want {
				t.Errorf("refusal %+v, want %s", out.peer.Refusal, test.want)
			}
		})
	}
}

// TestRenewal: a renewal carries a certificate and opens nothing.
func TestRenewal(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	renew := func(r *ProofRequest) { r.Renew, r.Hello = true, nil }
	accept := func(send func(conn net.Conn)) (*tls.Conn, *Peer, error) {
		client, server := pair(t)
		go func() {
			send(client)
			client.(*net.TCPConn).CloseWrite()
		}()
		secure, peer, err := g.Accept(t.Context(), server)
		if _, more := server.Read(make([]byte, 1)); !errors.Is(more, net.ErrClosed) {
			t.Errorf("the connection is still open: %v", more)
		}
		return secure, peer, err
	}
	jws := l.prove(t, nil, renew)
	secure, peer, err := accept(func(conn net.Conn) { WritePreface(conn, jws) })
	if secure != nil || err != nil || !peer.Proof.Renew || peer.Refusal != nil {
		t.Fatalf("%v, %+v, %v", secure, peer, err)
	}
	if _, _, err := accept(func(conn net.Conn) { WritePreface(conn, jws) }); !errors.Is(err, ErrReplayed) {
		t.Errorf("replayed: %v", err)
	}
	if _, peer, err := accept(func(conn net.Conn) {
		WritePreface(conn, l.prove(t, nil, renew))
		conn.Write([]byte{recordHandshake})
	}); err == nil || peer != nil {
		t.Errorf("with bytes after it: %v, %v", peer, err)
	}
	_, peer, err = accept(func(conn net.Conn) {
		WritePreface(conn, l.prove(t, nil, renew, func(r *ProofRequest) { r.Audience = "other" }))
	})
	if err != nil || peer.Refusal == nil || peer.Refusal.Reason != wire.ReasonWrongCluster {
		t.Errorf("of another cluster: %+v, %v", peer, err)
	}
	// A renewal is no way in, and a proof for a hello is no renewal.
	out := g.visit(t, g.client(), func(conn net.Conn, h *Hello) error { return plain(conn, l.prove(t, nil, renew), h) })
	if out.err == nil || out.client == nil {
		t.Error("a renewal let a handshake in")
	}
	if _, _, err := accept(func(conn net.Conn) { WritePreface(conn, l.prove(t, []byte("hello"))) }); err == nil {
		t.Error("a proof without its hello was accepted")
	}
}

// TestAcceptTimeout: whoever is slow is cut after ten seconds, at every step, and
// at once when the caller has had enough.
func TestAcceptTimeout(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	h := hello(t, g.client())
	stream := func() []byte { // preface and hello
		var b []byte
		WritePreface((*appendWriter)(&b), l.prove(t, h.Message))
		return append(b, h.Raw...)
	}()
	for name, n := range map[string]int{
		"nothing": 0, "half a magic": 2, "half a preface": 500,
		"half a hello": len(stream) - 50, "no more than the hello": len(stream),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := *g.Acceptor
				a.Replay = new(ReplayCache)
				a.Now = func() time.Time { return l.chain[0].NotBefore.Add(5 * time.Minute) }
				client, server := net.Pipe()
				defer client.Close()
				go func() {
					for _, b := range stream[:n] { // also one byte at a time does not help
						time.Sleep(time.Millisecond)
						client.Write([]byte{b})
					}
					io.Copy(io.Discard, client)
				}()
				start := time.Now()
				if _, _, err := a.Accept(t.Context(), server); err == nil || time.Since(start) != 10*time.Second {
					t.Errorf("cut after %s: %v", time.Since(start), err)
				}
			})
		})
	}
	t.Run("caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			if _, _, err := g.Accept(ctx, server); err == nil || time.Since(start) != time.Second {
				t.Errorf("cut after %s: %v", time.Since(start), err)
			}
		})
	})
}

type appendWriter []byte

func (w *appendWriter) Write(b []byte) (int, error) {
	*w = append(*w, b...)
	return len(b), nil
}

// TestAcceptedSpeaksHTTP2: net/http sees the *tls.Conn and speaks HTTP/2 on it, and
// no deadline is left from the accepting.
func TestAcceptedSpeaksHTTP2(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	client, server := pair(t)
	handler := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	})}
	served := make(chan error, 1)
	go func() {
		watched := &deadlineConn{Conn: server}
		secure, _, err := g.Accept(t.Context(), watched)
		if err != nil {
			served <- err
			return
		}
		if !watched.last.IsZero() {
			t.Errorf("the deadline %s is left", watched.last)
		}
		served <- handler.Serve(&oneListener{conn: secure})
	}()
	inside := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   g.client(),
		ForceAttemptHTTP2: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return &agentConn{Conn: client, send: func(conn net.Conn, h *Hello) error {
				return plain(conn, l.prove(t, h.Message), h)
			}}, nil
		},
	}}
	for range 2 {
		response, err := inside.Get("https://" + name)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) != "HTTP/2.0" {
			t.Errorf("protocol %q", body)
		}
	}
	inside.CloseIdleConnections()
	handler.Close()
	<-served
}

// deadlineConn remembers the last deadline.
type deadlineConn struct {
	net.Conn
	last time.Time
}

func (c *deadlineConn) SetDeadline(t time.Time) error      { c.last = t; return c.Conn.SetDeadline(t) }
func (c *deadlineConn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *deadlineConn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// oneListener gives one connection and then blocks until it is closed.
type oneListener struct {
	conn net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn, l.done = nil, make(chan struct{})
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneListener) Close() error {
	close(l.done)
	return nil
}

func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestReplayConn: deadlines and half-close are the connection's own.
func TestReplayConn(t *testing.T) {
	t.Parallel()
	client, server := pair(t)
	conn := &replayConn{Conn: server, read: []byte("hello")}
	b := make([]byte, 3)
	for _, want := range []string{"hel", "lo"} {
		if n, err := conn.Read(b); string(b[:n]) != want || err != nil {
			t.Errorf("read %q, %v, want %q", b[:n], err, want)
		}
	}
	conn.SetReadDeadline(time.Now().Add(-time.Second))
	var timeout net.Error
	if _, err := conn.Read(b); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read after the deadline: %v", err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(b); err != io.EOF {
		t.Errorf("the peer reads %v after the half-close", err)
	}
	if err := (&replayConn{Conn: struct{ net.Conn }{server}}).CloseWrite(); err == nil {
		t.Error("a connection without half-close pretends to have one")
	}
}
