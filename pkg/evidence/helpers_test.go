package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	domain  = "zt.example.com"
	cluster = "cluster-uid-of-prod"
	name    = "prod.example.com"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.cert = a.issue(t, &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "authority"},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, a.key.Public())
	return a
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) issue(t testing.TB, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// server issues a leaf for name.
func (a *authority) server(t testing.TB, name string) trust.GetCertificate {
	t.Helper()
	key := newKey(t)
	leaf := a.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	certificate := &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }
}

// laptop is what an agent holds.
type laptop struct {
	device, proof *ecdsa.PrivateKey
	chain         []*x509.Certificate
}

func newLaptop(t testing.TB, ca *authority, change ...func(*x509.Certificate)) *laptop {
	t.Helper()
	l := &laptop{device: newKey(t), proof: newKey(t)}
	proof, err := Thumbprint(l.proof.Public())
	if err != nil {
		t.Fatal(err)
	}
	template, err := trust.TrustTemplate(trust.Identity{
		TrustDomain: domain,
		Session:     "abcdefghijklmnopqrstuvwxyz",
		Proof:       proof,
		User:        wire.User{Issuer: "https://idp.example.com", Subject: "1", Name: "alice@example.com"},
	}, time.Now().Add(-5*time.Minute), time.Now().Add(time.Hour), big.NewInt(0xabc))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(template)
	}
	l.chain = []*x509.Certificate{ca.issue(t, template, l.device.Public()), ca.cert}
	return l
}

// prove makes the proof for hello, as request has been changed.
func (l *laptop) prove(t testing.TB, hello []byte, change ...func(*ProofRequest)) string {
	t.Helper()
	request := ProofRequest{Audience: cluster, Hello: hello, Now: time.Now(), Chain: l.chain}
	for _, c := range change {
		c(&request)
	}
	jws, err := SignProof(l.proof, request)
	if err != nil {
		t.Fatal(err)
	}
	return jws
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// agentConn stands between a TLS client and a stream, as the agent does: the
// client's first Write is its hello, and send says what becomes of it.
type agentConn struct {
	net.Conn
	send func(conn net.Conn, hello *Hello) error
	sent bool
}

func (c *agentConn) Write(b []byte) (int, error) {
	if c.sent {
		return c.Conn.Write(b)
	}
	c.sent = true
	hello, err := ReadHello(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	return len(b), c.send(c.Conn, hello)
}

// plain sends preface and hello, each in one piece.
func plain(conn net.Conn, jws string, hello *Hello) error {
	if err := WritePreface(conn, jws); err != nil {
		return err
	}
	_, err := conn.Write(hello.Raw)
	return err
}

// hello returns the ClientHello that config's client would send.
func hello(t testing.TB, config *tls.Config) *Hello {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer client.Close()
		tls.Client(client, config).HandshakeContext(t.Context())
	}()
	h, err := ReadHello(server)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	<-done
	return h
}

// pair is a connection on loopback, seen from both ends.
func pair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// deafConn takes everything and says nothing.
type deafConn struct{ net.Conn }

func (deafConn) Read([]byte) (int, error)    { return 0, io.EOF }
func (deafConn) Write(b []byte) (int, error) { return len(b), nil }
func (deafConn) Close() error                { return nil }

func statementOf(nonce string) wire.DeviceStatement {
	return wire.DeviceStatement{Purpose: wire.PurposeLogin, Audience: domain, Nonce: nonce}
}

func (l *laptop) identity(t testing.TB) trust.Identity {
	t.Helper()
	id, err := trust.ParseTrustCertificate(l.chain[0], domain)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
