package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/transcript"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	domain    = "zt.test"
	patience  = 10 * time.Second
	testPause = 5 * time.Millisecond
)

// clock is a settable time.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// rig is a real edge on loopback with a backend that tests can see into.
type rig struct {
	*Edge
	t           *testing.T
	authorities *ca.Authorities
	registry    *revoke.Registry
	metrics     *metrics.Metrics
	clock       *clock
	backend     *backend
	log         *transcript.Buffer
	addr        string
	stopped     chan error
	stop        context.CancelFunc
}

// backend serves streams with handle and counts them.
type backend struct {
	handle func(ctx context.Context, conn net.Conn)
	served atomic.Int64
	open   atomic.Int64
	mu     sync.Mutex
	notes  []Notes
}

func (b *backend) ServeStream(ctx context.Context, conn net.Conn, notes Notes) {
	b.served.Add(1)
	b.open.Add(1)
	defer b.open.Add(-1)
	b.mu.Lock()
	b.notes = append(b.notes, notes)
	b.mu.Unlock()
	defer conn.Close()
	b.handle(ctx, conn)
}

// echo gives back what comes until the client's end.
func echo(_ context.Context, conn net.Conn) { io.Copy(conn, conn) }

// prepare makes an edge that does not listen yet.
func prepare(t *testing.T, edit func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{}, registry: revoke.New(), metrics: metrics.New(), backend: &backend{handle: echo}, log: &transcript.Buffer{}}
	var err error
	if r.authorities, err = ca.Open(t.TempDir(), domain, domain, r.clock.Now); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Domain: domain, TrustDomain: domain,
		GatewayCertificate: trust.GetCertificate(r.authorities.ServerLeaf("gw."+domain, "127.0.0.1")),
		TunnelCertificate:  trust.GetCertificate(r.authorities.ServerLeaf("tunnel." + domain)),
		Roots:              func() *x509.CertPool { return r.authorities.Roots(trust.Trust) },
		Gateway:            http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "gateway") }),
		Control:            r.backend,
		Cluster: func(name wire.ClusterName) Backend {
			if name == "prod" {
				return r.backend
			}
			return nil
		},
		Registry: r.registry,
		Metrics:  r.metrics,
		Logger:   slog.New(slog.NewTextHandler(r.log, nil)),
		Now:      r.clock.Now,
	}
	if edit != nil {
		edit(&o)
	}
	if r.Edge, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

// start makes an edge that listens on loopback.
func start(t *testing.T, edit func(*Options)) *rig {
	t.Helper()
	r := prepare(t, edit)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = listener.Addr().String()
	r.stopped = make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.stopped <- r.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-r.stopped:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("serve does not end")
		}
	})
	return r
}

// device is a laptop's keys and its certificate.
type device struct {
	key      *ecdsa.PrivateKey
	identity trust.Identity
	chain    []*x509.Certificate
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (r *rig) device(user string, lifetime time.Duration) *device {
	r.t.Helper()
	proof, err := trust.Thumbprint(newKey(r.t).Public())
	if err != nil {
		r.t.Fatal(err)
	}
	d := &device{key: newKey(r.t), identity: trust.Identity{
		Session: wire.SessionID(strings.ToLower(rand.Text())),
		Proof:   proof,
		User:    wire.User{Issuer: "https://idp.test", Subject: wire.Subject(user), Name: wire.Username(user + "@example.com")},
	}}
	d.chain = r.issue(d, lifetime)
	return d
}

func (r *rig) issue(d *device, lifetime time.Duration) []*x509.Certificate {
	r.t.Helper()
	chain, err := r.authorities.IssueTrust(d.identity, &d.key.PublicKey, lifetime)
	if err != nil {
		r.t.Fatal(err)
	}
	return chain
}

func (d *device) certificate() *tls.Certificate {
	if d == nil {
		return &tls.Certificate{}
	}
	cert := &tls.Certificate{PrivateKey: d.key}
	for _, c := range d.chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

func chainPEM(chain []*x509.Certificate) string {
	var b strings.Builder
	for _, c := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// tls opens a connection to tunnel.DOMAIN, of which the handshake is done on
// this side; what the edge thinks of it shows in the first read.
func (r *rig) tls(d *device) *tls.Conn {
	r.t.Helper()
	raw, err := net.DialTimeout("tcp", r.addr, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.tlsOver(raw, d)
}

func (r *rig) tlsOver(raw net.Conn, d *device) *tls.Conn {
	r.t.Helper()
	config := trust.TunnelClient("tunnel."+domain, r.authorities.Roots(trust.Gateway), func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return d.certificate(), nil
	})
	conn := tls.Client(raw, config)
	r.t.Cleanup(func() { raw.Close() })
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// connection is an HTTP/2 connection of a device.
func (r *rig) connection(d *device) *h2conn.Client {
	r.t.Helper()
	client, err := h2conn.NewClient(r.tls(d), h2conn.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { client.Close() })
	return client
}

// connect opens a stream; header is as the client would send it.
func connect(t *testing.T, c *h2conn.Client, authority string) *h2conn.Stream {
	t.Helper()
	s, err := c.Connect(t.Context(), authority, nil)
	if err != nil {
		t.Fatalf("connect %s: %v", authority, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// refusal is the answer to a CONNECT that must not be accepted.
func refusal(t *testing.T, s *h2conn.Stream) *h2conn.RefusedError {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := s.Response(ctx)
	var refused *h2conn.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("the answer is %v, want a refusal", err)
	}
	return refused
}

// accepted waits for the 200.
func accepted(t *testing.T, s *h2conn.Stream) *h2conn.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := s.Response(ctx); err != nil {
		t.Fatalf("the answer is %v, want 200", err)
	}
	return s
}

// eventually polls until check holds.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(testPause)
	}
}

// metric is the value of the first series that begins with name.
func (r *rig) metric(name string) string {
	recorder := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(recorder.Body.String()) {
		if strings.HasPrefix(line, name) {
			fields := strings.Fields(line)
			return fields[len(fields)-1]
		}
	}
	return ""
}

// revokeUser puts a user on the deny list.
func (r *rig) revokeUser(name string) {
	r.registry.Apply([]*v1alpha1.Revocation{{
		Spec: v1alpha1.RevocationSpec{User: name, Reason: "left the company", At: metav1.NewTime(r.clock.Now())},
	}}, wire.Epoch{Generation: 1, Sequence: 1})
}
