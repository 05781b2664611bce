package evidence

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// The attacker of these tests is an edge: it sees every preface and every hello,
// keeps what it likes, and sends what it likes. It has no key of the laptop's and
// none of the cluster's, but may well trust the cluster's certificate.

// TestEdgeCopiesRandom: the edge keeps a preface and sends a hello of its own that
// has the signed hello's random.
func TestEdgeCopiesRandom(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	victim := hello(t, g.client())
	random := victim.Message[6:38]
	kept := l.prove(t, victim.Message)

	own := g.client(func(c *tls.Config) { c.Rand = io.MultiReader(bytes.NewReader(random), rand.Reader) })
	out := g.visit(t, own, func(conn net.Conn, h *Hello) error {
		if !bytes.Equal(h.Message[6:38], random) || bytes.Equal(h.Message, victim.Message) {
			t.Error("the test is void: the random was not copied")
		}
		return plain(conn, kept, h)
	})
	if out.err == nil || !strings.Contains(out.err.Error(), "another client hello") || out.client == nil {
		t.Errorf("server %v, client %v", out.err, out.client)
	}
}

// TestEdgeAsksForRetry: the signed hello offers a group that the server likes best
// and has no key share for it. A server that asked for another hello would accept
// the edge's key share in it.
func TestEdgeAsksForRetry(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	// Key share of X25519; P-256 in the list of groups becomes a post-quantum one.
	h := hello(t, g.client(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} }))
	groups := []byte{0, 10, 0, 6, 0, 4, 0, byte(tls.X25519), 0, byte(tls.CurveP256)}
	at := bytes.Index(h.Message, groups)
	if at < 0 {
		t.Fatal("the test is void: no list of groups")
	}
	binary.BigEndian.PutUint16(h.Message[at+8:], uint16(tls.X25519MLKEM768))

	answer := func(serve func(net.Conn)) []byte {
		client, server := pair(t)
		go serve(server)
		plain(client, l.prove(t, h.Message), h)
		head := make([]byte, recordHeaderSize+messageHeaderSize+2+sha256.Size)
		if _, err := io.ReadFull(client, head); err != nil {
			t.Fatal(err)
		}
		client.Close()
		return head[len(head)-sha256.Size:]
	}
	// The random of a HelloRetryRequest, RFC 8446, 4.1.3.
	retry := sha256.Sum256([]byte("HelloRetryRequest"))
	careless := answer(func(conn net.Conn) {
		ReadPreface(conn)
		tls.Server(conn, trust.StreamServer(g.Certificate, nil)).HandshakeContext(t.Context())
	})
	if !bytes.Equal(careless, retry[:]) {
		t.Fatal("the test is void: even a careless server asks for no other hello")
	}
	done := make(chan error)
	careful := answer(func(conn net.Conn) {
		go func() {
			_, _, err := g.Accept(t.Context(), conn)
			done <- err
		}()
	})
	if bytes.Equal(careful, retry[:]) {
		t.Error("the server asked for another hello")
	}
	if err := <-done; err == nil {
		t.Error("the handshake succeeded without its client")
	}
}

// TestNoKnownKeyShare: where a retry would be the only way on, nothing is answered.
func TestNoKnownKeyShare(t *testing.T) {
	t.Parallel()
	for name, group := range map[string]uint16{"GREASE": 0x0a0a, "ffdhe2048": 0x0100} {
		g := newGate(t)
		l := newLaptop(t, g.trust)
		h := hello(t, g.client(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256} }))
		share := []byte{0, 51, 0, 38, 0, 36, 0, byte(tls.X25519), 0, 32}
		at := bytes.Index(h.Message, share)
		if at < 0 {
			t.Fatal("the test is void: no key share")
		}
		binary.BigEndian.PutUint16(h.Message[at+6:], group)
		client, server := pair(t)
		go plain(client, l.prove(t, h.Message), h)
		_, _, err := g.Accept(t.Context(), server)
		if err == nil || !strings.Contains(err.Error(), "no key share") {
			t.Errorf("%s: %v", name, err)
		}
		if answer, _ := io.ReadAll(client); len(answer) != 0 {
			t.Errorf("%s: %d bytes were answered", name, len(answer))
		}
	}
}

// TestPrefaceStripped: without its preface a stream is direct, whoever brings it,
// and where there is no direct it is cut.
func TestPrefaceStripped(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	strip := func(conn net.Conn, h *Hello) error {
		_, err := conn.Write(h.Raw)
		return err
	}
	if out := g.visit(t, g.client(), strip); !errors.Is(out.err, ErrNoPreface) || out.client == nil {
		t.Errorf("server %v, client %v", out.err, out.client)
	}
	g.Direct = func() *tls.Config { return trust.DirectServer(g.Certificate, g.Roots, domain, "prod") }
	out := g.visit(t, g.client(), strip)
	if out.err != nil || out.client != nil || !out.peer.Direct() || out.peer.Refusal != nil {
		t.Errorf("peer %+v, server %v, client %v", out.peer, out.err, out.client)
	}
}

// TestPrefaceOfAnotherCluster: a proof that was made for another cluster, with its
// own hello, is genuine and refused.
func TestPrefaceOfAnotherCluster(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	out := g.visit(t, g.client(), func(conn net.Conn, h *Hello) error {
		return plain(conn, l.prove(t, h.Message, func(r *ProofRequest) { r.Audience = "cluster-uid-of-dev" }), h)
	})
	if out.err != nil || out.peer.Refusal == nil || out.peer.Refusal.Reason != wire.ReasonWrongCluster {
		t.Errorf("peer %+v, %v", out.peer, out.err)
	}
}

// TestReplayed: a preface with its very hello works once.
func TestReplayed(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	var kept []byte
	out := g.visit(t, g.client(), func(conn net.Conn, h *Hello) error {
		WritePreface((*appendWriter)(&kept), l.prove(t, h.Message))
		kept = append(kept, h.Raw...)
		_, err := conn.Write(kept)
		return err
	})
	if out.err != nil {
		t.Fatal(out.err)
	}
	client, server := pair(t)
	go client.Write(kept)
	if _, _, err := g.Accept(t.Context(), server); !errors.Is(err, ErrReplayed) {
		t.Errorf("replayed: %v", err)
	}
	if answer, _ := io.ReadAll(client); len(answer) != 0 {
		t.Errorf("%d bytes were answered", len(answer))
	}
}

// TestEarlyData: a hello that announces 0-RTT data gets no handshake.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	l := newLaptop(t, g.trust)
	h := withExtension(hello(t, g.client()), []byte{0, 42, 0, 0})
	client, server := pair(t)
	go plain(client, l.prove(t, h.Message), h)
	if _, _, err := g.Accept(t.Context(), server); err == nil || !strings.Contains(err.Error(), "early data") {
		t.Errorf("accepted: %v", err)
	}
}

// withExtension adds an extension in front of h's.
func withExtension(h *Hello, extension []byte) *Hello {
	// header, version, random, session, ciphers, compression
	at := messageHeaderSize + 2 + 32
	at += 1 + int(h.Message[at])
	at += 2 + int(binary.BigEndian.Uint16(h.Message[at:]))
	at += 1 + int(h.Message[at])
	message := bytes.Clone(h.Message)
	binary.BigEndian.PutUint16(message[at:], binary.BigEndian.Uint16(message[at:])+uint16(len(extension)))
	message = append(message[:at+2], append(bytes.Clone(extension), message[at+2:]...)...)
	binary.BigEndian.PutUint16(message[2:], uint16(len(message)-messageHeaderSize))
	raw := append([]byte{recordHandshake, 3, 1, 0, 0}, message...)
	binary.BigEndian.PutUint16(raw[3:], uint16(len(message)))
	return &Hello{Raw: raw, Message: raw[recordHeaderSize:]}
}

// TestHelloInPieces: however the genuine hello is cut up on its way, it gets in.
func TestHelloInPieces(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(io.Writer, []byte, []byte) error{
		"single bytes": func(w io.Writer, preface, message []byte) error {
			return writePieces(w, append(preface, records(message, len(message))...), 1)
		},
		"one record for each 100 bytes": func(w io.Writer, preface, message []byte) error {
			return writePieces(w, append(preface, records(message, 100)...), 1<<20)
		},
		"one record for each byte": func(w io.Writer, preface, message []byte) error {
			return writePieces(w, append(preface, records(message, 1)...), 1<<20)
		},
		"one record for each byte, in pieces": func(w io.Writer, preface, message []byte) error {
			return writePieces(w, append(preface, records(message, 1)...), 7)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			l := newLaptop(t, g.trust)
			out := g.visit(t, g.client(), func(conn net.Conn, h *Hello) error {
				var preface []byte
				WritePreface((*appendWriter)(&preface), l.prove(t, h.Message))
				return send(conn, preface, h.Message)
			})
			if out.err != nil || out.client != nil || out.peer.Refusal != nil {
				t.Errorf("server %v, client %v", out.err, out.client)
			}
		})
	}
}

// records puts message into handshake records of size bytes each.
func records(message []byte, size int) []byte {
	var b []byte
	for len(message) > 0 {
		n := min(size, len(message))
		b = append(b, recordHandshake, 3, 1, byte(n>>8), byte(n))
		b = append(b, message[:n]...)
		message = message[n:]
	}
	return b
}

func writePieces(w io.Writer, b []byte, size int) error {
	for len(b) > 0 {
		n, err := w.Write(b[:min(size, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// TestMalformedStreams: what proves nothing is cut without an answer.
func TestMalformedStreams(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.Direct = func() *tls.Config { return trust.DirectServer(g.Certificate, g.Roots, domain, "prod") }
	l, other := newLaptop(t, g.trust), newLaptop(t, newAuthority(t))
	h := hello(t, g.client())
	preface := func(jws string) []byte {
		var b []byte
		WritePreface((*appendWriter)(&b), jws)
		return b
	}
	good := func() []byte { return preface(l.prove(t, h.Message)) }
	for name, stream := range map[string][]byte{
		"plain HTTP":                 []byte("GET / HTTP/1.1\r\nHost: prod\r\n\r\n"),
		"another version":            append([]byte("ZTP2"), good()[4:]...),
		"length zero":                {'Z', 'T', 'P', '1', 0, 0, 22},
		"length too large":           append([]byte{'Z', 'T', 'P', '1', 0x10, 0x01}, make([]byte, 5000)...),
		"no JWS":                     append(preface("not a JWS"), h.Raw...),
		"another trust pool":         append(preface(other.prove(t, h.Message)), h.Raw...),
		"no hello":                   good(),
		"two prefaces":               append(good(), append(good(), h.Raw...)...),
		"an alert instead":           append(good(), 21, 3, 1, 0, 2, 1, 0),
		"application data instead":   append(good(), 23, 3, 3, 0, 1, 0),
		"a certificate instead":      append(good(), records([]byte{11, 0, 0, 1, 0}, 100)...),
		"an empty record":            append(good(), 22, 3, 1, 0, 0),
		"a record too long":          append(good(), 22, 3, 1, 0x40, 1),
		"a hello too long":           append(good(), records(append([]byte{1, 0, 0x40, 0}, make([]byte, 16384)...), 16000)...),
		"something after the hello":  append(good(), records(append(bytes.Clone(h.Message), 1, 0, 0, 0), 1<<14)...),
		"another byte in the hello":  append(good(), records(flip(h.Message, 40), 1<<14)...),
		"a hello that ends early":    append(good(), h.Raw[:len(h.Raw)-1]...),
		"SSL 2 hello":                append(good(), 0x80, 0x2e, 1, 3, 1, 0),
		"TLS 1.2 hello, well signed": tls12(t, g, l),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, server := pair(t)
			go func() {
				client.Write(stream)
				client.(*net.TCPConn).CloseWrite()
			}()
			secure, peer, err := g.Accept(t.Context(), server)
			if err == nil || secure != nil || peer != nil {
				t.Errorf("%v, %v, %v", secure, peer, err)
			}
			if answer, _ := io.ReadAll(client); len(answer) != 0 {
				t.Errorf("%d bytes were answered", len(answer))
			}
		})
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// tls12 is a well-signed stream of a client that knows no TLS 1.3.
func tls12(t *testing.T, g *gate, l *laptop) []byte {
	h := hello(t, g.client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }))
	var b []byte
	WritePreface((*appendWriter)(&b), l.prove(t, h.Message))
	return append(b, h.Raw...)
}
