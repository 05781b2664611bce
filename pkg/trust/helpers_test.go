package trust

import (
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

	"github.com/kube-zt/zt/pkg/wire"
)

const (
	domain  = "zt.example.com"
	session = "abcdefghijklmnopqrstuvwxyz"
)

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := newKey(t)
	return &authority{key: key, cert: create(t, &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, nil, key.Public(), key)}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) roots() *x509.CertPool { return a.pool() }

// issue signs template for pub.
func (a *authority) issue(t testing.TB, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	return create(t, template, a.cert, pub, a.key)
}

// server issues a server leaf and returns it with the authority's certificate, as
// a gateway shows it.
func (a *authority) server(t testing.TB, name string, change ...func(*x509.Certificate)) GetCertificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range change {
		c(template)
	}
	leaf := a.issue(t, template, key.Public())
	return show(key, leaf, a.cert)
}

// client issues a trust certificate and returns what chooses it.
func (a *authority) client(t testing.TB, change ...func(*x509.Certificate)) GetClientCertificate {
	t.Helper()
	key := newKey(t)
	template := trustTemplate(t)
	for _, c := range change {
		c(template)
	}
	certificate, _ := show(key, a.issue(t, template, key.Public()))(nil)
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
}

func show(key crypto.Signer, chain ...*x509.Certificate) GetCertificate {
	certificate := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		certificate.Certificate = append(certificate.Certificate, cert.Raw)
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }
}

func testIdentity(t testing.TB) Identity {
	t.Helper()
	proof, err := Thumbprint(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	return Identity{
		TrustDomain: domain,
		Session:     session,
		Proof:       proof,
		User:        wire.User{Issuer: "https://idp.example.com", Subject: "1", Name: "alice@example.com"},
	}
}

func trustTemplate(t testing.TB) *x509.Certificate {
	t.Helper()
	template, err := TrustTemplate(testIdentity(t), time.Now().Add(-5*time.Minute), time.Now().Add(time.Hour), big.NewInt(0xabc))
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func kubeconfigTemplate(t testing.TB, cluster wire.ClusterName) *x509.Certificate {
	t.Helper()
	template, err := KubeconfigTemplate(KubeconfigIdentity{TrustDomain: domain, Cluster: cluster, User: "alice@example.com"},
		time.Now().Add(-5*time.Minute), time.Now().Add(time.Hour), big.NewInt(0xdef))
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func create(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// outcome of a handshake on both sides, and of one byte each way after it.
type outcome struct {
	server, client           error
	serverState, clientState tls.ConnectionState
}

// meet lets a server and a client meet on loopback.
func meet(t testing.TB, server, client *tls.Config) outcome {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			out.server = err
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		secure := tls.Server(conn, server)
		if out.server = secure.HandshakeContext(t.Context()); out.server == nil {
			out.serverState = secure.ConnectionState()
			io.Copy(secure, io.LimitReader(secure, 1))
		}
		secure.Close()
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	secure := tls.Client(conn, client)
	if out.client = secure.HandshakeContext(t.Context()); out.client == nil {
		out.clientState = secure.ConnectionState()
		secure.Write([]byte("x"))
		_, out.client = io.ReadFull(secure, make([]byte, 1))
	}
	secure.Close()
	<-done
	return out
}
