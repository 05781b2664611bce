package control

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	domain   = "zt.test"
	patience = 10 * time.Second
)

// objects are the clusters, roles and policies of most tests: alice, of the
// employees, may see prod; carol, of all-admins, secret as well; lab is off.
const objects = `
apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata: {name: prod, labels: {env: prod}}
spec: {displayName: Production, description: the real thing, url: "https://10.0.0.1:6443", tokenFile: /nowhere/token}
---
apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata: {name: secret}
spec: {url: "https://10.0.0.2:6443", tokenFile: /nowhere/token}
---
apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata: {name: lab}
spec: {url: "https://10.0.0.3:6443", tokenFile: /nowhere/token, access: Disabled, hidden: true}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: devs}
spec: {groups: [employees]}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: admins}
spec: {groups: [all-admins]}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: guests}
spec: {users: ["*"], device: {tiers: [none]}}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: devs}
spec:
  roles: [devs, admins]
  clusters: [prod, lab]
  rules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"]}]
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: admins}
spec:
  roles: [admins]
  clusters: [secret]
  rules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"]}]
`

// clock is real time plus an offset.
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

// rig is a whole control over a real store and a real identity provider.
type rig struct {
	*Control
	t         *testing.T
	clock     *clock
	idp       *idp.Provider
	store     *store.Store
	authority *ca.Authorities
	registry  *revoke.Registry
	metrics   *metrics.Metrics
	dir       string
	url       string // of gw.
	addr      string // of streams
	http      *http.Client
	reachable sync.Map // wire.ClusterName: unreachable
}

type rigOptions struct {
	objects  string
	config   func(*v1alpha1.GatewayConfiguration)
	idp      idp.Options
	provider *idp.Provider // instead of a new one
	issuerCA []byte        // instead of the provider's; empty and not nil for none
	foreign  func(name string) bool
	logger   *slog.Logger
}

func start(t *testing.T, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{}, dir: t.TempDir(), registry: revoke.New(), metrics: metrics.New(), idp: o.provider}
	var err error
	if r.idp == nil {
		o.idp.Algorithm = jose.ES256 // its keys are made faster
		if r.idp, err = idp.Start(context.WithoutCancel(t.Context()), o.idp); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.idp.Close() })
	}
	if o.objects == "" {
		o.objects = objects
	}
	if err := os.Mkdir(filepath.Join(r.dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("objects.yaml", o.objects)
	config := &v1alpha1.GatewayConfiguration{
		Domain: domain, Directory: r.dir,
		OIDC:  v1alpha1.OIDC{Issuer: r.idp.Issuer(), ClientID: r.idp.ClientID()},
		Login: v1alpha1.Login{Enrolment: v1alpha1.EnrolmentOpen},
	}
	if o.config != nil {
		o.config(config)
	}
	config.Default()
	if r.store, err = store.Open(r.dir, store.Options{Now: r.clock.Now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	if r.authority, err = ca.Open(filepath.Join(r.dir, "state"), domain, domain, r.clock.Now); err != nil {
		t.Fatal(err)
	}
	if o.issuerCA == nil {
		o.issuerCA = r.idp.CAPEM()
	}
	log, err := audit.Open(filepath.Join(r.dir, "state", "audit.log"), audit.Options{Now: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	r.Control, err = New(Options{
		Config: func() *v1alpha1.GatewayConfiguration { return config }, IssuerCA: o.issuerCA, Authorities: r.authority, Store: r.store, Registry: r.registry,
		Audit: log, Metrics: r.metrics, Now: r.clock.Now, Foreign: o.foreign, Logger: o.logger,
		Reachable: func(name wire.ClusterName) bool { _, down := r.reachable.Load(name); return !down },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.run()
	return r
}

// run serves gw. and streams, and brings state changes to the registry as the
// gateway does.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	var running sync.WaitGroup
	gw := httptest.NewServer(r.Gateway())
	r.url = gw.URL
	r.http = &http.Client{Transport: &http.Transport{}}
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = streams.Addr().String()
	running.Go(func() { r.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			notes := edge.Notes{Client: netip.MustParseAddrPort("192.0.2.7:4711"), Regime: edge.RegimeTunnel}
			running.Go(func() { r.ServeStream(ctx, conn, notes) })
		}
	})
	changes := r.store.Subscribe(ctx)
	apply := func() {
		snapshot := r.store.Snapshot()
		r.registry.Apply(snapshot.Revocations, snapshot.Epoch)
		r.Changed()
	}
	apply()
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changes:
				apply()
			}
		}
	})
	r.t.Cleanup(func() {
		gw.Close()
		streams.Close()
		r.http.CloseIdleConnections()
		cancel()
		running.Wait()
	})
}

// write puts a file into config/; load makes the store read it.
func (r *rig) write(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "config", name), []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) load(name, content string) {
	r.t.Helper()
	r.write(name, content)
	if err := r.store.Reload(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// deviceManifest is an administrator's wish for a device.
func deviceManifest(id wire.DeviceID, spec string) string {
	return "apiVersion: kube-zt.io/v1alpha1\nkind: Device\nmetadata: {name: " + string(id) + "}\nspec: " + spec + "\n"
}

// post sends JSON to gw. and returns what came back; the refusal is nil for 2xx.
func (r *rig) post(path string, in, out any) *wire.Refusal {
	r.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		r.t.Fatal(err)
	}
	return exchange(r.t, r.http, http.MethodPost, r.url+path, body, out)
}

func exchange(t *testing.T, client *http.Client, method, url string, body []byte, out any) *wire.Refusal {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode >= 300 {
		refusal := new(wire.Refusal)
		if err := json.Unmarshal(text, refusal); err != nil || refusal.Message == "" {
			t.Fatalf("%s: status %d without a refusal: %s", url, response.StatusCode, text)
		}
		if refusal.Status() != response.StatusCode {
			t.Errorf("%s: status %d, the refusal says %d", url, response.StatusCode, refusal.Status())
		}
		return refusal
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			t.Fatalf("%s: %v in %s", url, err, text)
		}
	}
	return nil
}

// laptop is a device with its keys, and the session that it has.
type laptop struct {
	r     *rig
	key   *ecdsa.PrivateKey
	proof *ecdsa.PrivateKey
	// jkt and id are of the device key.
	jkt wire.Thumbprint
	id  wire.DeviceID
	// nonce of the last transaction.
	nonce string
	cert  wire.Certificate
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (r *rig) laptop() *laptop {
	l := &laptop{r: r, key: newKey(r.t), proof: newKey(r.t)}
	l.jkt, _ = trust.Thumbprint(l.key.Public())
	l.id = trust.DeviceID(l.jkt)
	return l
}

func (l *laptop) statement(purpose string) wire.DeviceStatement {
	l.r.t.Helper()
	var nonce wire.DeviceNonce
	if refusal := l.r.post(wire.PathDeviceNonce, struct{}{}, &nonce); refusal != nil {
		l.r.t.Fatal(refusal)
	}
	proof, _ := trust.Thumbprint(l.proof.Public())
	return wire.DeviceStatement{
		Purpose: purpose, Audience: domain, Nonce: nonce.Nonce, IssuedAt: nonce.Time.Unix(), Proof: proof,
		Platform: "linux", Hostname: "laptop", Client: "v1",
	}
}

func (l *laptop) submit(s wire.DeviceStatement) (wire.DeviceCheck, *wire.Refusal) {
	l.r.t.Helper()
	jws, err := evidence.SignStatement(l.key, s)
	if err != nil {
		l.r.t.Fatal(err)
	}
	var check wire.DeviceCheck
	refusal := l.r.post(wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: jws}, &check)
	l.nonce = check.Nonce
	return check, refusal
}

func (l *laptop) check(purpose string) string {
	l.r.t.Helper()
	check, refusal := l.submit(l.statement(purpose))
	if refusal != nil {
		l.r.t.Fatalf("device check for %s: %v", purpose, refusal)
	}
	return check.TXN
}

func csr(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// token is an ID token for the last transaction, with changes.
func (l *laptop) token(user string, changes map[string]any) string {
	claims := map[string]any{"nonce": l.nonce}
	for k, v := range changes {
		claims[k] = v
	}
	return l.r.idp.MintIDToken(user, idp.Mint{Claims: claims})
}

func (l *laptop) session(in wire.SessionRequest) *wire.Refusal {
	l.r.t.Helper()
	if in.CSR == "" {
		in.CSR = csr(l.r.t, l.key)
	}
	var cert wire.Certificate
	refusal := l.r.post(wire.PathSession, in, &cert)
	if refusal == nil {
		l.cert = cert
	}
	return refusal
}

// login is a good one.
func (l *laptop) login(user string) *laptop {
	l.r.t.Helper()
	txn := l.check(wire.PurposeLogin)
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token(user, nil)}); refusal != nil {
		l.r.t.Fatalf("login of %s: %v", user, refusal)
	}
	return l
}

func (l *laptop) chain() []*x509.Certificate {
	l.r.t.Helper()
	var chain []*x509.Certificate
	for rest := []byte(l.cert.Chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return chain
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			l.r.t.Fatal(err)
		}
		chain = append(chain, cert)
	}
}

func (l *laptop) identity() trust.Identity {
	l.r.t.Helper()
	id, err := trust.ParseTrustCertificate(l.chain()[0], domain)
	if err != nil {
		l.r.t.Fatal(err)
	}
	return id
}

// proving signs the hello that goes out and puts the preface before it.
type proving struct {
	net.Conn
	l    *laptop
	sent bool
}

func (p *proving) Write(b []byte) (int, error) {
	if p.sent {
		return p.Conn.Write(b)
	}
	p.sent = true
	hello, err := evidence.ReadHello(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	if err := p.l.preface(p.Conn, hello.Message); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

func (l *laptop) preface(w io.Writer, hello []byte) error {
	jws, err := evidence.SignProof(l.proof, evidence.ProofRequest{
		Audience: domain, Hello: hello, Renew: hello == nil, Now: l.r.clock.Now(), Chain: l.chain(),
	})
	if err != nil {
		return err
	}
	return evidence.WritePreface(w, jws)
}

// stream is a client over one stream to control.
func (l *laptop) stream() *http.Client {
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, "tcp", l.r.addr)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(&proving{Conn: raw, l: l}, trust.ControlClient(l.r.authority.Roots(trust.Gateway)))
			if err := conn.HandshakeContext(ctx); err != nil {
				raw.Close()
				return nil, err
			}
			return conn, nil
		},
	}
	l.r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

const controlURL = "https://control"

func (l *laptop) ask(client *http.Client, method, path string, in, out any) *wire.Refusal {
	l.r.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		l.r.t.Fatal(err)
	}
	return exchange(l.r.t, client, method, controlURL+path, body, out)
}

func (l *laptop) mint(client *http.Client, cluster wire.ClusterName) (wire.Token, *wire.Refusal) {
	l.r.t.Helper()
	var token wire.Token
	refusal := l.ask(client, http.MethodPost, wire.PathToken, wire.TokenRequest{Cluster: cluster}, &token)
	return token, refusal
}

// listen reads events into a channel that is closed with the stream.
func (l *laptop) listen(client *http.Client) <-chan wire.Event {
	l.r.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.r.t.Context()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, controlURL+wire.PathEvents, nil)
	if err != nil {
		l.r.t.Fatal(err)
	}
	long := &http.Client{Transport: client.Transport} // no time-out
	response, err := long.Do(request)
	if err != nil {
		l.r.t.Fatal(err)
	}
	events, done := make(chan wire.Event, 64), make(chan struct{})
	go func() {
		defer close(done)
		defer close(events)
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var event wire.Event
			if json.Unmarshal(lines.Bytes(), &event) != nil {
				return
			}
			events <- event
		}
	}()
	l.r.t.Cleanup(func() { cancel(); <-done })
	return events
}

// next is the next event of a kind.
func next(t *testing.T, events <-chan wire.Event, kind string) wire.Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case event, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended before an event %q", kind)
			}
			if event.Kind == kind {
				return event
			}
		case <-timeout:
			t.Fatalf("no event %q", kind)
		}
	}
}

// audited are the records of the log.
func (r *rig) audited() []audit.Record {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "state", "audit.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	var records []audit.Record
	for line := range strings.Lines(string(data)) {
		var record audit.Record
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			r.t.Fatalf("audit line %q: %v", line, err)
		}
		records = append(records, record)
	}
	return records
}

func (r *rig) revoke(spec v1alpha1.RevocationSpec) {
	r.t.Helper()
	if _, err := r.store.Revoke(r.t.Context(), spec, "test"); err != nil {
		r.t.Fatal(err)
	}
	snapshot := r.store.Snapshot()
	r.registry.Apply(snapshot.Revocations, snapshot.Epoch)
}

// eventually polls until check holds.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func mustRefuse(t *testing.T, what string, got *wire.Refusal, want wire.Reason) *wire.Refusal {
	t.Helper()
	switch {
	case got == nil:
		t.Errorf("%s: passed, want %s", what, want)
		return &wire.Refusal{}
	case got.Reason != want:
		t.Errorf("%s: %s (%s), want %s", what, got.Reason, got.Message, want)
	case len(got.Decision) != len(audit.NewDecision()):
		t.Errorf("%s: decision id %q", what, got.Decision)
	}
	return got
}

func decodeJSON(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func chainPEM(chain []*x509.Certificate) string {
	var b strings.Builder
	for _, c := range chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// accessToken comes from a whole login at the provider's own pages.
func (r *rig) accessToken(user string) string {
	r.t.Helper()
	client := &http.Client{Transport: r.idp.Transport()}
	ctx := context.WithValue(r.t.Context(), oauth2.HTTPClient, client)
	config := oauth2.Config{
		ClientID: r.idp.ClientID(), RedirectURL: "http://127.0.0.1:9/callback", Scopes: []string{"openid", "email", "groups"},
		Endpoint: oauth2.Endpoint{AuthURL: r.idp.Issuer() + "/authorize", TokenURL: r.idp.Issuer() + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams},
	}
	verifier := oauth2.GenerateVerifier()
	callback, err := r.idp.Browser().Authorize(ctx, config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)), user)
	if err != nil {
		r.t.Fatal(err)
	}
	at, err := url.Parse(callback)
	if err != nil {
		r.t.Fatal(err)
	}
	token, err := config.Exchange(ctx, at.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		r.t.Fatal(err)
	}
	return token.AccessToken
}
