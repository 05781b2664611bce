package edge

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestConnectReachesTheNamedBackend(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	c := r.connection(d)
	for _, name := range []string{"prod.zt.test:443", "control:443"} {
		s := connect(t, c, name)
		if _, err := s.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	r.backend.mu.Lock()
	defer r.backend.mu.Unlock()
	for _, n := range r.backend.notes {
		key, _ := trust.Thumbprint(d.key.Public())
		if n.Regime != RegimeTunnel || n.Session != d.identity.Session || n.Device != trust.DeviceID(key) || !n.Client.Addr().IsLoopback() {
			t.Errorf("notes %+v", n)
		}
	}
}

// refusedTargets are what must never be reached, whatever it is.
func refusedTargets(t *testing.T, status func(int) bool, targets ...string) {
	t.Helper()
	r := start(t, nil)
	c := r.connection(r.device("alice", time.Hour))
	for _, target := range targets {
		refused := refusal(t, connect(t, c, target))
		if !status(refused.Status) {
			t.Errorf("CONNECT %s: %d %v", target, refused.Status, refused.Refusal)
		}
		if len(refused.Refusal.Decision) != len(audit.NewDecision()) {
			t.Errorf("CONNECT %s: no decision id", target)
		}
	}
	if n := r.backend.served.Load(); n != 0 {
		t.Errorf("%d streams reached a backend", n)
	}
}

func TestV078(t *testing.T) {
	t.Parallel()
	// A port that would notice being dialled.
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	dialled := make(chan struct{}, 1)
	go func() {
		if conn, err := trap.Accept(); err == nil {
			conn.Close()
			dialled <- struct{}{}
		}
	}()
	port := trap.Addr().(*net.TCPAddr).Port
	refusedTargets(t, func(code int) bool { return code == http.StatusForbidden },
		"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "169.254.169.254:443", "[::ffff:169.254.169.254]:443",
		"127.0.0.1:443", "localhost:443", "[::1]:443", "0.0.0.0:443", "[::]:443",
		"metadata.google.internal:443", "metadata:443", "instance-data:443", "metadata.google.internal:80",
		"node-1:10250", "127.0.0.1:10250", "127.0.0.1:2379", "etcd:2379", "127.0.0.1:9090",
		fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("localhost:%d", port),
		"2130706433:443", "0x7f.1:443", "127.1:443", "kubernetes.default.svc:443",
		"absent.zt.test:443", "PROD.zt.test:443", "prod.zt.test.:443", "prod.zt.test.evil.com:443", "x.prod.zt.test:443", ".zt.test:443", "zt.test:443",
	)
	select {
	case <-dialled:
		t.Error("a target was dialled")
	default:
	}
	t.Run("the package can neither dial nor resolve", func(t *testing.T) {
		t.Parallel()
		files := token.NewFileSet()
		packages, err := parser.ParseDir(files, ".", nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, pkg := range packages {
			for name, file := range pkg.Files {
				if strings.HasSuffix(name, "_test.go") {
					continue
				}
				ast.Inspect(file, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok && (strings.Contains(id.Name, "Dial") || strings.HasPrefix(id.Name, "Lookup") || strings.HasPrefix(id.Name, "Resolve")) {
						t.Errorf("%s: %s", files.Position(id.Pos()), id.Name)
					}
					return true
				})
			}
		}
	})
}

func TestV079(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, target := range []string{
		"prod.zt.test:22", "prod.zt.test:0", "prod.zt.test:65536", "prod.zt.test:https", "prod.zt.test:+443", "prod.zt.test:443:443",
		"prod.zt.test", "prod.zt.test:", "prod.zt.test:0443", "prod.zt.test:4430", "prod.zt.test:443 ", "prod.zt.test: 443",
		"control", "control:80", "control:https", "[prod.zt.test]:443", "user@prod.zt.test:443", "[::1:443", "prod.zt.test:\xef\xbc\x94443", "",
	} {
		f := r.framer(r.device("alice", time.Hour)) // a device has not that many connections
		f.headers(1, false, "CONNECT", target)
		// Go resets a stream whose authority is no URL's: as good as 400.
		if got := f.status(1); got != "400" && got != "403" && got != "reset" {
			t.Errorf("CONNECT %q: %s, want 400 or 403", target, got)
		}
	}
	if n := r.backend.served.Load(); n != 0 {
		t.Errorf("%d streams reached a backend", n)
	}
}

func TestV080(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.connection(r.device("alice", time.Hour))
	for _, target := range []string{"http://internal/", "https://prod.zt.test/api", "https://tunnel.zt.test/", "https://tunnel.zt.test/zt/v1/renew", "https://tunnel.zt.test/metrics"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions, http.MethodPut} {
			if method == http.MethodPost && strings.HasSuffix(target, wire.PathRenewPeer) {
				continue
			}
			request, err := http.NewRequestWithContext(t.Context(), method, target, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := c.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want 405", method, target, response.StatusCode)
			}
		}
	}
	if n := r.backend.served.Load(); n != 0 {
		t.Errorf("%d streams reached a backend", n)
	}
}

func TestV081(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	for _, field := range [][2]string{{"content-length", "5"}, {"content-length", "0"}, {"transfer-encoding", "chunked"}} {
		f := r.framer(d)
		f.headers(1, false, "CONNECT", "prod.zt.test:443", field)
		if got := f.status(1); got != "400" {
			t.Errorf("CONNECT with %s: %s: %s, want 400", field[0], field[1], got)
		}
	}
	if n := r.backend.served.Load(); n != 0 {
		t.Errorf("%d streams reached a backend", n)
	}
}

func TestV082(t *testing.T) {
	t.Parallel()
	t.Run("allowed: delivered intact", func(t *testing.T) {
		t.Parallel()
		r := start(t, nil)
		cluster, err := r.authorities.Cluster("prod")
		if err != nil {
			t.Fatal(err)
		}
		r.backend.handle = func(ctx context.Context, conn net.Conn) {
			inner := tls.Server(conn, trust.StreamServer(trust.GetCertificate(cluster.Leaf), nil))
			if inner.HandshakeContext(ctx) == nil {
				io.Copy(inner, inner)
			}
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(cluster.CAPEM)
		c := r.connection(r.device("alice", time.Hour))
		for i := range count(1000) {
			s := connect(t, c, "prod.zt.test:443") // the hello leaves with the CONNECT
			inner := tls.Client(s, &tls.Config{RootCAs: roots, ServerName: "prod.zt.test", MinVersion: tls.VersionTLS13})
			if err := inner.HandshakeContext(t.Context()); err != nil {
				t.Fatalf("handshake %d: %v", i, err)
			}
			inner.Close()
		}
	})
	t.Run("refused: never read as a request", func(t *testing.T) {
		t.Parallel()
		r := start(t, nil)
		f := r.framer(r.device("alice", time.Hour))
		f.headers(1, false, "CONNECT", "absent.zt.test:443")
		f.data(1, []byte("CONNECT prod.zt.test:443 HTTP/1.1\r\nHost: prod.zt.test:443\r\n\r\n"))
		if got := f.status(1); got != "403" {
			t.Errorf("status %s, want 403", got)
		}
		f.ended(1)
		if n := r.backend.served.Load(); n != 0 {
			t.Errorf("%d streams reached a backend", n)
		}
	})
}

func TestV083(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	f := r.framer(d)
	f.headers(1, false, "CONNECT", "absent.zt.test:443", [2]string{"host", "prod.zt.test:443"})
	if got := f.status(1); got != "403" && got != "400" {
		t.Errorf("a refused target beside an allowed Host: %s", got)
	}
	if n := r.backend.served.Load(); n != 0 {
		t.Fatalf("the Host line was followed")
	}
	f = r.framer(d)
	f.headers(1, false, "CONNECT", "prod.zt.test:443", [2]string{"host", "absent.zt.test:443"})
	if got := f.status(1); got != "200" {
		t.Errorf("an allowed target beside a refused Host: %s, want 200", got)
	}
}

func TestV084(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	f := r.framer(r.device("alice", time.Hour))
	f.send(1, false, [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "https"}, {":path", "/"}, {":authority", "prod.zt.test:443"},
	})
	if got := f.status(1); got != "501" && got != "reset" {
		t.Errorf("extended CONNECT: %s, want 501 or a reset stream", got)
	}
	if value, ok := f.settings[settingEnableConnect]; ok && value != 0 {
		t.Error("extended CONNECT is advertised")
	}
	if n := r.backend.served.Load(); n != 0 {
		t.Errorf("%d streams reached a backend", n)
	}
}

func TestV085(t *testing.T) {
	t.Parallel()
	other, err := ca.Open(t.TempDir(), domain, domain, nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		device func(r *rig) *device
	}{
		{"no certificate", func(*rig) *device { return nil }},
		{"expired", func(r *rig) *device {
			r.clock.advance(-2 * time.Hour)
			defer r.clock.advance(2 * time.Hour)
			return r.device("alice", time.Hour)
		}},
		{"of the future", func(r *rig) *device {
			r.clock.advance(2 * time.Hour)
			defer r.clock.advance(-2 * time.Hour)
			return r.device("alice", time.Hour)
		}},
		{"of another authority", func(r *rig) *device {
			d := r.device("alice", time.Hour)
			chain, err := other.IssueTrust(d.identity, &d.key.PublicKey, time.Hour)
			if err != nil {
				r.t.Fatal(err)
			}
			d.chain = chain
			return d
		}},
		{"a server's", func(r *rig) *device {
			leaf, err := r.authorities.ServerLeaf("tunnel." + domain)(nil)
			if err != nil {
				r.t.Fatal(err)
			}
			return &device{key: leaf.PrivateKey.(privateKey), chain: []*x509.Certificate{leaf.Leaf, r.authorities.Certificate(trust.Gateway)}}
		}},
		{"revoked", func(r *rig) *device {
			d := r.device("alice", time.Hour)
			r.revokeUser("alice@example.com")
			return d
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, nil)
			d := tt.device(r)
			conn := r.tls(d)
			conn.SetDeadline(time.Now().Add(patience))
			n, err := conn.Read(make([]byte, 1))
			var alert *net.OpError
			if n != 0 || !errors.As(err, &alert) || alert.Op != "remote error" {
				t.Errorf("read %d bytes and %v, want none and an alert", n, err)
			}
			eventually(t, "the failure is counted", func() bool { return r.metric(`zt_handshake_failures_total{cause=`) == "1" })
		})
	}
}

func TestV086(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	renewing, expiring := r.connection(d), r.connection(d)
	watch := accepted(t, connect(t, renewing, "prod.zt.test:443"))
	doomed := accepted(t, connect(t, expiring, "prod.zt.test:443"))

	r.clock.advance(30 * time.Minute)
	d.chain = r.issue(d, time.Hour)
	if code := renew(t, renewing, d.chain); code != http.StatusNoContent {
		t.Fatalf("renewal: %d, want 204", code)
	}
	r.clock.advance(31 * time.Minute)

	ended := time.Now()
	doomed.SetReadDeadline(ended.Add(patience))
	if _, err := doomed.Read(make([]byte, 1)); err == nil {
		t.Error("the expired tunnel carries bytes")
	}
	select {
	case <-expiring.Done():
	case <-time.After(patience):
	}
	if took := time.Since(ended); took > 5*time.Second {
		t.Errorf("the expired tunnel ended after %v", took)
	}
	for range 3 {
		if _, err := watch.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(watch, make([]byte, 1)); err != nil {
			t.Fatalf("the renewed tunnel: %v", err)
		}
	}
	accepted(t, connect(t, renewing, "prod.zt.test:443"))
}

// renew shows the edge a chain on a connection.
func renew(t *testing.T, c *h2conn.Client, chain []*x509.Certificate) int {
	t.Helper()
	return post(t, c, fmt.Sprintf(`{"chain":%q}`, chainPEM(chain)))
}

func post(t *testing.T, c *h2conn.Client, body string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://tunnel."+domain+wire.PathRenewPeer, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func TestRenewalsThatAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	c := r.connection(d)
	stranger, err := ca.Open(t.TempDir(), domain, domain, nil)
	if err != nil {
		t.Fatal(err)
	}
	otherKey := r.device("alice", time.Hour)
	otherKey.identity.Session, otherKey.identity.Proof = d.identity.Session, d.identity.Proof
	otherSession, otherUser, otherProof := *d, *d, *d
	otherSession.identity.Session = wire.SessionID(strings.ToLower(rand.Text()))
	otherUser.identity.User.Subject = "mallory"
	if otherProof.identity.Proof, err = trust.Thumbprint(newKey(t).Public()); err != nil {
		t.Fatal(err)
	}
	forged, err := stranger.IssueTrust(d.identity, &d.key.PublicKey, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		chain []*x509.Certificate
		want  int
	}{
		{"same key and session", r.issue(d, 2*time.Hour), http.StatusNoContent},
		{"an older one", d.chain, http.StatusNoContent}, // changes nothing
		{"another key", r.issue(otherKey, time.Hour), http.StatusForbidden},
		{"another session", r.issue(&otherSession, time.Hour), http.StatusForbidden},
		{"another person", r.issue(&otherUser, time.Hour), http.StatusForbidden},
		{"another proof key", r.issue(&otherProof, time.Hour), http.StatusForbidden},
		{"another authority", forged, http.StatusForbidden},
		{"none", nil, http.StatusBadRequest},
	}
	for _, tt := range tests {
		if got := renew(t, c, tt.chain); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	for _, body := range []string{"", "{}", "null", `{"chain":1}`, `{"chain":"x","more":1}`, strings.Repeat("x", maxRenewal+1)} {
		if got := post(t, c, body); got != http.StatusBadRequest {
			t.Errorf("body %.20q: %d, want 400", body, got)
		}
	}
}

func TestV087(t *testing.T) {
	t.Parallel()
	const limit = defaultTunnels
	r := start(t, nil)
	d := r.device("alice", time.Hour)
	var clients []*h2conn.Client
	open := func() *h2conn.Stream {
		for _, c := range clients {
			if c.Streams() < h2conn.MaxStreams-1 {
				return connect(t, c, "prod.zt.test:443")
			}
		}
		clients = append(clients, r.connection(d))
		return connect(t, clients[len(clients)-1], "prod.zt.test:443")
	}
	var streams []*h2conn.Stream
	for range limit {
		streams = append(streams, accepted(t, open()))
	}
	for i := range count(1000) {
		if got := refusal(t, open()).Status; got != http.StatusTooManyRequests {
			t.Fatalf("round %d: tunnel %d got %d, want 429", i, limit+1, got)
		}
		streams[0].Close()
		eventually(t, "a slot returns", func() bool { return r.tunnels.Open() == limit-1 })
		streams = append(streams[1:], accepted(t, open()))
		if got := r.tunnels.Open(); got != limit {
			t.Fatalf("round %d: %d slots taken, want %d", i, got, limit)
		}
	}
	// Another device, and this one's control, are not concerned.
	accepted(t, connect(t, r.connection(r.device("bob", time.Hour)), "prod.zt.test:443"))
	accepted(t, connect(t, r.connection(d), "control:443"))
	for _, c := range clients {
		c.Close()
	}
	eventually(t, "all slots return", func() bool { return r.tunnels.Open() == 1 })
}

func TestV088(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	reply := bytes.Repeat([]byte("full reply "), 100_000)
	r.backend.handle = func(_ context.Context, conn net.Conn) {
		request, err := io.ReadAll(conn) // until the client's FIN
		if err != nil || string(request) != "request" {
			t.Errorf("request %q, %v", request, err)
		}
		conn.Write(reply)
	}
	c := r.connection(r.device("alice", time.Hour))
	s := connect(t, c, "prod.zt.test:443")
	s.Write([]byte("request"))
	s.CloseWrite()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, reply) {
		t.Errorf("%d bytes of %d, %v", len(got), len(reply), err)
	}
	eventually(t, "the stream ends", func() bool { return r.backend.open.Load() == 0 && r.tunnels.Open() == 0 })
}

func TestV090(t *testing.T) {
	t.Parallel()
	// Even an edge that had a cluster of every name would not be its own.
	r := start(t, func(o *Options) {
		every := o.Control
		o.Cluster = func(wire.ClusterName) Backend { return every }
	})
	_, port, _ := net.SplitHostPort(r.addr)
	c := r.connection(r.device("alice", time.Hour))
	for _, target := range []string{
		"gw.zt.test:443", "tunnel.zt.test:443", "control.zt.test:443", "direct.zt.test:443", "prod.direct.zt.test:443",
		"gw.zt.test:" + port, r.addr, "localhost:" + port,
	} {
		if got := refusal(t, connect(t, c, target)).Status; got != http.StatusForbidden {
			t.Errorf("CONNECT %s: %d, want 403", target, got)
		}
	}
}

// What may not be seen and what is not there look alike, and both ways ask.
func TestInvisibleLooksUnknown(t *testing.T) {
	t.Parallel()
	asked := make(chan wire.ClusterName, 2)
	r := start(t, func(o *Options) {
		o.Admit = func(_ trust.Identity, name wire.ClusterName) *wire.Refusal {
			asked <- name
			return UnknownCluster()
		}
	})
	c := r.connection(r.device("alice", time.Hour))
	invisible := refusal(t, connect(t, c, "prod.zt.test:443"))
	absent := refusal(t, connect(t, c, "absent.zt.test:443"))
	if len(asked) != 2 {
		t.Errorf("%d of 2 were asked about", len(asked))
	}
	if invisible.Refusal.Decision == absent.Refusal.Decision {
		t.Error("the decision ids are the same")
	}
	invisible.Refusal.Decision, absent.Refusal.Decision = "", ""
	if *invisible.Refusal != *absent.Refusal || invisible.Status != absent.Status {
		t.Errorf("%+v and %+v", invisible.Refusal, absent.Refusal)
	}
}
