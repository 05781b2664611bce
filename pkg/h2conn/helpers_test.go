package h2conn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
)

// testServer serves one TLS connection after the other on loopback.
type testServer struct {
	addr   string
	roots  *x509.CertPool
	server *http.Server
}

// serveStreams starts a server whose streams are all given to serve, in a
// goroutine each, and closed when it returns.
func serveStreams(t testing.TB, serve func(*ServerStream)) *testServer {
	return serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream, err := Accept(w, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			defer stream.Close()
			serve(stream)
		})
		stream.Run()
		serving.Wait()
	}))
}

func serveHTTP(t testing.TB, handler http.Handler) *testServer {
	t.Helper()
	certificate, roots := serverCertificate(t, "tunnel.example.com")
	s := &testServer{roots: roots, server: &http.Server{
		Handler:   handler,
		TLSConfig: trust.GatewayServer(certificate),
		ErrorLog:  log.New(io.Discard, "", 0),
	}}
	if err := ConfigureServer(s.server); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { s.server.ServeTLS(listener, "", "") })
	t.Cleanup(func() {
		s.server.Close()
		serving.Wait()
	})
	return s
}

// dial opens a warm connection to s.
func (s *testServer) dial(t testing.TB) *Client {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	return s.client(t, conn)
}

func (s *testServer) client(t testing.TB, conn net.Conn) *Client {
	t.Helper()
	secure := tls.Client(conn, trust.TunnelClient("tunnel.example.com", s.roots, nil))
	if err := secure.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(secure, Options{UserAgent: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// connect opens a stream and closes it with the test.
func connect(t testing.TB, c *Client) *Stream {
	t.Helper()
	stream, err := c.Connect(context.Background(), "prod:443", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	return stream
}

// serverCertificate makes a self-signed server certificate and a pool with it.
func serverCertificate(t testing.TB, name string) (trust.GetCertificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	certificate := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }, roots
}
