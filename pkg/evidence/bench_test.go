//go:build unix

package evidence

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
)

// What a proof costs beside the handshake that it is for.

func BenchmarkSignProof(b *testing.B) {
	l := newLaptop(b, newAuthority(b))
	defer perOp(b, cpu())
	for b.Loop() {
		l.prove(b, []byte("hello"))
	}
}

func BenchmarkVerifyProof(b *testing.B) {
	ca := newAuthority(b)
	jws, roots := newLaptop(b, ca).prove(b, []byte("hello")), ca.pool()
	for name, cache := range map[string]*ChainCache{"new certificate": nil, "known certificate": new(ChainCache)} {
		b.Run(name, func(b *testing.B) {
			defer perOp(b, cpu())
			for b.Loop() {
				if _, err := verifyProof(jws, roots, domain, time.Now(), cache); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHandshake is both sides of the inner handshake, alone and with its proof.
func BenchmarkHandshake(b *testing.B) {
	g := newGate(b)
	l := newLaptop(b, g.trust)
	roots := g.trust.pool()
	g.Chains = new(ChainCache)
	g.Roots = func() *x509.CertPool { return roots }
	meet := func(b *testing.B, client net.Conn, accept func(net.Conn) (*tls.Conn, error)) {
		near, far := net.Pipe()
		if agent, ok := client.(*agentConn); ok {
			agent.Conn, near = near, agent
		}
		done := make(chan error, 1)
		go func() {
			_, err := accept(far)
			done <- err
		}()
		if err := tls.Client(near, g.client()).HandshakeContext(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		far.Close()
	}
	b.Run("alone", func(b *testing.B) {
		defer perOp(b, cpu())
		for b.Loop() {
			meet(b, nil, func(conn net.Conn) (*tls.Conn, error) {
				secure := tls.Server(conn, trust.StreamServer(g.Certificate, nil))
				return secure, secure.HandshakeContext(b.Context())
			})
		}
	})
	b.Run("with proof", func(b *testing.B) {
		defer perOp(b, cpu())
		for b.Loop() {
			agent := &agentConn{send: func(conn net.Conn, h *Hello) error { return plain(conn, l.prove(b, h.Message), h) }}
			meet(b, agent, func(conn net.Conn) (*tls.Conn, error) {
				secure, _, err := g.Accept(b.Context(), conn)
				return secure, err
			})
		}
	})
}

// cpu is the processor time that this process has used, in microseconds: the
// steadiest figure on a machine that does other things as well.
func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e3
}

func perOp(b *testing.B, since float64) { b.ReportMetric((cpu()-since)/float64(b.N), "cpu-µs/op") }
