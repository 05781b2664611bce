// Package gatewaytest is a small gateway for the tests of the laptop's side: real
// TLS, real proofs, real streams and no policy. It believes ID tokens without
// their signatures and keeps its state in maps; everything it does can be
// switched. The real gateway is tried in the end-to-end tests.
package gatewaytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Domain and TrustDomain of every test gateway.
const (
	Domain      = "zt.test"
	TrustDomain = "trust.zt.test"
)

// Authority is a CA with its key.
type Authority struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
	PEM  string
}

// Gateway is running until the test ends. Switches and counters are guarded by
// its mutex: use With.
type Gateway struct {
	t      testing.TB
	Addr   string
	GW     *Authority // server CA
	Trust  *Authority
	leaf   *tls.Certificate
	config *tls.Config
	server *http.Server
	inner  sync.WaitGroup
	stop   chan struct{}

	mu      sync.Mutex
	hearing map[chan wire.Event]bool // event streams
	State
}

// State is what tests turn and read.
type State struct {
	OIDC      wire.OIDC
	Enrolment string
	Minimum   string
	// CertLife and TokenLife of what is issued.
	CertLife, TokenLife time.Duration
	// Ahead is how far the gateway's clock runs ahead of this machine's.
	Ahead time.Duration
	// Down closes every new connection at once.
	Down bool
	// RefuseCheck, RefuseToken, RefuseRenewal and RefuseConnect answer with that.
	RefuseCheck, RefuseToken, RefuseRenewal, RefuseConnect *wire.Refusal
	// HoldConnect delays the answer to a CONNECT of a cluster.
	HoldConnect time.Duration
	// Slow is how many of the next certificates are made by a clock that is ten
	// minutes slow.
	Slow int
	// BreakConnects is how many of the next CONNECTs of clusters break before they
	// are answered.
	BreakConnects int
	// BreakTokens is how many of the next requests for a token break.
	BreakTokens int
	// WrongProof issues certificates for another proof key than the one shown.
	WrongProof bool
	// RejectCertificates fails the tunnel's handshakes.
	RejectCertificates bool
	// PanicOnToken panics in the handler.
	PanicOnToken bool

	Clusters map[wire.ClusterName]*Cluster
	Sessions map[wire.SessionID]*Session

	// Counters.
	Discoveries, Checks, Issued, Renewed, RenewedExpired, Minted, Logouts, Enrolled int
	Connections                                                                     int // TCP
	Tunnels                                                                         int // finished tunnel handshakes
	Connects                                                                        map[string]int
	PeerRenewals                                                                    int            // POST /zt/v1/renew
	Prefaces                                                                        map[string]int // renewals by authority
	LastCSR                                                                         string
	UserAgent                                                                       string
}

// Session is one login.
type Session struct {
	ID    wire.SessionID
	User  wire.User
	Key   wire.Thumbprint
	Proof wire.Thumbprint
	Ended bool
}

// Start runs a gateway with the clusters "prod" and "dev".
func Start(t testing.TB, oidc wire.OIDC) *Gateway {
	t.Helper()
	g := &Gateway{t: t, GW: NewAuthority(t, "gateway"), Trust: NewAuthority(t, "trust"), stop: make(chan struct{}), hearing: map[chan wire.Event]bool{}}
	g.State = State{
		OIDC: oidc, Enrolment: "Open", CertLife: time.Hour, TokenLife: 5 * time.Minute,
		Clusters: map[wire.ClusterName]*Cluster{}, Sessions: map[wire.SessionID]*Session{},
		Connects: map[string]int{}, Prefaces: map[string]int{},
	}
	g.leaf = g.GW.Leaf(t, "127.0.0.1", "gw."+Domain, "tunnel."+Domain, "control")
	g.AddCluster("prod")
	g.AddCluster("dev")
	g.serve()
	t.Cleanup(g.Close)
	return g
}

// URL is the login URL, and Pinned the same with the pin.
func (g *Gateway) URL() string    { return "https://" + g.Addr }
func (g *Gateway) Pinned() string { return g.URL() + "#sha256=" + trust.SPKIPin(g.GW.Cert) }

// With runs f under the mutex.
func (g *Gateway) With(f func(s *State)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.State)
}

// Read returns something of the state.
func Read[T any](g *Gateway, f func(s *State) T) T {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(&g.State)
}

// Now is the gateway's clock.
func (g *Gateway) Now() time.Time {
	return time.Now().Add(Read(g, func(s *State) time.Duration { return s.Ahead }))
}

func (g *Gateway) serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	g.Addr = l.Addr().String()
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.leaf, nil }
	roots := poolOf(g.Trust.Cert)
	tunnel := trust.TunnelServer(get, func() *x509.CertPool { return roots }, g.admit, TrustDomain)
	config := trust.GatewayServer(get)
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.ServerName == "tunnel."+Domain {
			return tunnel.GetConfigForClient(h)
		}
		return nil, nil
	}
	g.config = config
	g.run(l)
}

// run serves until g.server is closed.
func (g *Gateway) run(l net.Listener) {
	server := &http.Server{Handler: http.HandlerFunc(g.handle), TLSConfig: g.config.Clone(), ErrorLog: log.New(io.Discard, "", 0)}
	if err := h2conn.ConfigureServer(server); err != nil {
		g.t.Error(err)
	}
	g.server = server
	g.inner.Go(func() { _ = server.ServeTLS(&counting{l, g}, "", "") })
}

// Close stops everything.
func (g *Gateway) Close() {
	g.mu.Lock()
	select {
	case <-g.stop:
	default:
		close(g.stop)
	}
	g.mu.Unlock()
	g.server.Close()
	g.inner.Wait()
}

// admit is the deny list of the tunnel.
func (g *Gateway) admit(id trust.Identity) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.Sessions[id.Session]; g.RejectCertificates || s == nil || s.Ended {
		return errRejected
	}
	g.Tunnels++
	return nil
}

func (g *Gateway) handle(w http.ResponseWriter, r *http.Request) {
	if r.TLS.ServerName == "tunnel."+Domain {
		g.tunnel(w, r)
		return
	}
	g.gateway(w, r)
}

// Drop cuts all connections and listens again at the same address, as a restart
// does.
func (g *Gateway) Drop() {
	g.server.Close()
	var l net.Listener
	var err error
	for range 100 {
		if l, err = net.Listen("tcp", g.Addr); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		g.t.Errorf("listen again: %v", err)
		return
	}
	g.run(l)
}

// counting counts connections, and refuses them when the gateway is down.
type counting struct {
	net.Listener
	g *Gateway
}

func (c *counting) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		down := false
		c.g.With(func(s *State) {
			s.Connections++
			down = s.Down
		})
		if !down {
			return conn, nil
		}
		conn.Close()
	}
}

// NewAuthority makes a CA.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{Cert: cert, Key: key, PEM: encode(der)}
}

// Leaf makes a server certificate that comes with its CA.
func (a *Authority) Leaf(t testing.TB, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.Cert.Raw}, PrivateKey: key}
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n.Add(n, big.NewInt(1))
}

func encode(ders ...[]byte) string {
	var b strings.Builder
	for _, der := range ders {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

func poolOf(cert *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func stopped(g *Gateway) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	g.inner.Go(func() {
		<-g.stop
		cancel()
	})
	return ctx
}
