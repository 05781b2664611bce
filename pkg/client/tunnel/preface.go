package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/kube-zt/zt/pkg/evidence"
)

// Proof signs a peer proof for a stream to audience that begins with hello, or,
// with a nil hello, for a renewal.
type Proof func(audience string, hello []byte) (string, error)

// announce is what goes in front of kubectl's bytes: the preface, and the hello
// that it vouches for, in one piece.
func announce(hello *evidence.Hello, audience string, proof Proof) ([]byte, error) {
	jws, err := proof(audience, hello.Message)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := evidence.WritePreface(&b, jws); err != nil {
		return nil, err
	}
	b.Write(hello.Raw)
	return b.Bytes(), nil
}

// Announced wraps a stream for a TLS client in this process: it holds the first
// bytes back until the ClientHello is whole, and sends them behind its preface.
func Announced(stream net.Conn, audience string, proof Proof) net.Conn {
	return &announced{Conn: stream, audience: audience, proof: proof}
}

type announced struct {
	net.Conn
	audience string
	proof    Proof
	held     []byte // until sent
	sent     bool
}

// Write is called by one goroutine until the handshake is done, by crypto/tls's
// own rule; afterwards it only passes on.
func (a *announced) Write(p []byte) (int, error) {
	if a.sent {
		return a.Conn.Write(p)
	}
	a.held = append(a.held, p...)
	rest := bytes.NewReader(a.held)
	hello, err := evidence.ReadHello(rest)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return len(p), nil
	}
	if err != nil {
		return 0, err
	}
	first, err := announce(hello, a.audience, a.proof)
	if err != nil {
		return 0, fmt.Errorf("sign the connection: %w", err)
	}
	a.sent = true
	first = append(first, slices.Clone(a.held[len(a.held)-rest.Len():])...)
	a.held = nil
	if _, err := a.Conn.Write(first); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteRenewal sends a preface that opens nothing: the far side extends every
// stream of this session to the certificate in it.
func WriteRenewal(stream net.Conn, audience string, proof Proof) error {
	jws, err := proof(audience, nil)
	if err != nil {
		return err
	}
	return evidence.WritePreface(stream, jws)
}
