package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	rigDomain = "zt.test"
	rigIssuer = "https://gw.zt.test"
	rigIdP    = wire.Issuer("https://idp.zt.test")
)

// everything lets the role all do everything; what Kubernetes and the built-in
// rules refuse is refused all the same.
const everything = `
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: all}
spec: {users: ["*"], device: {tiers: [none, software]}}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: everything}
spec:
  roles: [all]
  clusters: ["*"]
  rules:
  - {verbs: ["*"], apiGroups: ["*"], resources: ["*", "*/*", nodes/proxy]}
  - {verbs: ["*"], nonResourceURLs: ["*"]}
`

// rig is one kube part with real authorities, proofs, tokens and policies,
// between laptops that the test plays and an upstream that records.
type rig struct {
	t           testing.TB
	authorities *ca.Authorities
	cluster     *ca.ClusterAuthority
	registry    *revoke.Registry
	metrics     *metrics.Metrics
	kube        *Kube
	upstream    *upstream
	auditFile   string
	tokenFile   string
	snapshot    atomic.Pointer[store.Snapshot]
	epoch       atomic.Uint64
	listener    net.Listener
	ahead       atomic.Int64 // how far the gateway's clock is ahead of the laptops'
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

type rigOptions struct {
	manifests string // instead of everything
	direct    bool
	further   *authn.FurtherIssuers
	limits    v1alpha1.Limits
	// url, ca and token replace the recording upstream by another.
	url   string
	ca    []byte
	token string
	// profile is Constrained by default.
	profile v1alpha1.ImpersonationProfile
	audit   func(path string) *audit.Log
	// noWait is set where the first proof must not be waited for.
	noWait bool
	// requestTime is the kube part's own where it is zero.
	requestTime time.Duration
	// http1 makes the recording upstream speak HTTP/1.1 alone.
	http1 bool
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, registry: revoke.New(), metrics: metrics.New(), auditFile: filepath.Join(dir, "audit.log"), tokenFile: filepath.Join(dir, "token")}
	var err error
	state := filepath.Join(dir, "state")
	must(t, os.Mkdir(state, 0o700))
	r.authorities, err = ca.Open(state, rigDomain, rigDomain, time.Now)
	must(t, err)
	r.cluster, err = r.authorities.Cluster("prod")
	must(t, err)
	if o.token == "" {
		o.token = "the-gateways-own-token"
	}
	must(t, os.WriteFile(r.tokenFile, []byte(o.token+"\n"), 0o600))
	if o.url == "" {
		r.upstream = newUpstreamServer(t, !o.http1)
		o.url, o.ca = r.upstream.server.URL, r.upstream.caPEM()
	}
	if o.manifests == "" {
		o.manifests = everything
	}
	object := &v1alpha1.TargetCluster{}
	object.Name = "prod"
	object.Spec = v1alpha1.TargetClusterSpec{URL: o.url, CertificateAuthorityData: string(o.ca), TokenFile: r.tokenFile, Direct: o.direct, Impersonation: o.profile}
	object.Default()
	r.apply(object, o.manifests)

	log, err := audit.Open(r.auditFile, audit.Options{})
	must(t, err)
	if o.audit != nil {
		log = o.audit(r.auditFile)
	}
	r.kube, err = NewKube(KubeOptions{
		Cluster: object, UID: r.cluster.UID, Domain: rigDomain, TrustDomain: rigDomain,
		Certificate: trust.GetCertificate(r.cluster.Leaf),
		TrustRoots:  func() *x509.CertPool { return r.authorities.Roots(trust.Trust) },
		Snapshot:    r.snapshot.Load,
		Registry:    r.registry,
		Tokens: authn.NewTokens(authn.TokensOptions{
			Issuer: rigIssuer, UsernamePrefix: "zt:",
			Keys: func() jose.JSONWebKeySet { return r.authorities.TokenKeys() },
		}),
		Further: o.further,
		Audit:   log, Metrics: r.metrics, Limits: func() v1alpha1.Limits { return o.limits }, Now: r.now,
	})
	must(t, err)

	if o.requestTime > 0 {
		r.kube.requestTime = o.requestTime
		r.kube.server = r.kube.newServer()
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r.listener, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() { _ = r.kube.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				r.kube.ServeStream(ctx, conn, edge.Notes{Client: netip.MustParseAddrPort("203.0.113.7:4711"), Regime: edge.RegimeTunnel})
			})
		}
	})
	t.Cleanup(func() {
		stop()
		r.listener.Close()
		running.Wait()
		log.Close()
	})
	if !o.noWait {
		r.eventually("the kube part is ready", func() bool { return r.kube.Reachable() })
	}
	return r
}

// apply makes manifests, and the cluster, the present state.
func (r *rig) apply(cluster *v1alpha1.TargetCluster, manifests string) {
	r.t.Helper()
	objects, errs := manifest.Decode("rig.yaml", []byte(manifests))
	for i := range objects {
		errs = append(errs, objects[i].Check(time.Now())...)
	}
	if len(errs) > 0 {
		r.t.Fatal(errs)
	}
	n := r.epoch.Add(1)
	s := &store.Snapshot{
		Epoch: wire.Epoch{Generation: 1, Sequence: n}, Version: hex.EncodeToString([]byte{byte(n)}),
		Clusters: map[wire.ClusterName]*v1alpha1.TargetCluster{wire.ClusterName(cluster.Name): cluster},
		Roles:    map[wire.Role]*v1alpha1.AccessRole{}, Policies: map[string]*v1alpha1.AccessPolicy{},
	}
	var roles []*v1alpha1.AccessRole
	var policies []*v1alpha1.AccessPolicy
	for _, o := range objects {
		switch o := o.Object.(type) {
		case *v1alpha1.AccessRole:
			s.Roles[wire.Role(o.Name)] = o
			roles = append(roles, o)
		case *v1alpha1.AccessPolicy:
			s.Policies[o.Name] = o
			policies = append(policies, o)
		}
	}
	var faults []error
	s.Policy, faults = policy.Compile(s.Version, []*v1alpha1.TargetCluster{cluster}, roles, policies)
	if len(faults) > 0 {
		r.t.Fatal(errors.Join(faults...))
	}
	r.snapshot.Store(s)
}

// manifests exchanges the policies and keeps the cluster.
func (r *rig) manifests(text string) {
	r.t.Helper()
	r.apply(r.snapshot.Load().Clusters["prod"], text)
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within 15 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// records are the audit log so far.
func (r *rig) records() []audit.Record {
	r.t.Helper()
	data, err := os.ReadFile(r.auditFile)
	must(r.t, err)
	var records []audit.Record
	for line := range bytes.Lines(data) {
		var record audit.Record
		if err := json.Unmarshal(line, &record); err != nil {
			r.t.Fatalf("audit line %q: %v", line, err)
		}
		records = append(records, record)
	}
	return records
}

// outcome is the one outcome of a decision; it may come a moment after the
// answer.
func (r *rig) outcome(id string) audit.Record {
	r.t.Helper()
	var found []audit.Record
	r.eventually("an outcome of "+id, func() bool {
		found = nil
		for _, record := range r.records() {
			if string(record.ID) == id && record.Kind == audit.KindOutcome {
				found = append(found, record)
			}
		}
		return len(found) > 0
	})
	if len(found) != 1 {
		r.t.Errorf("%d outcomes of decision %s", len(found), id)
	}
	return found[0]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// person is somebody on a device in a session.
type person struct {
	rig        *rig
	user       wire.User
	session    wire.SessionID
	key, proof *ecdsa.PrivateKey
	chain      []*x509.Certificate
	roles      []wire.Role
	device     wire.Device
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

// person logs somebody in on a new device, as control would.
func (r *rig) person(name string, roles ...wire.Role) *person {
	r.t.Helper()
	if roles == nil {
		roles = []wire.Role{"all"}
	}
	p := &person{
		rig: r, user: wire.User{Issuer: rigIdP, Subject: wire.Subject("sub-" + name), Name: wire.Username(name)},
		session: wire.SessionID(rand.Text()), key: newKey(r.t), proof: newKey(r.t), roles: roles,
	}
	p.renew(time.Hour)
	id := p.identity()
	p.device = wire.Device{ID: id.Device, Thumbprint: id.Key, Tier: "software", Ownership: "personal"}
	return p
}

// renew gives the person a new certificate for the same session and key.
func (p *person) renew(life time.Duration) {
	p.rig.t.Helper()
	thumbprint, err := trust.Thumbprint(p.proof.Public())
	must(p.rig.t, err)
	p.chain, err = p.rig.authorities.IssueTrust(trust.Identity{Session: p.session, Proof: thumbprint, User: p.user}, &p.key.PublicKey, life)
	must(p.rig.t, err)
}

func (p *person) identity() trust.Identity {
	p.rig.t.Helper()
	id, err := trust.ParseTrustCertificate(p.chain[0], rigDomain)
	must(p.rig.t, err)
	return id
}

// claims of a good access token.
func (p *person) claims() wire.TokenClaims {
	now := time.Now()
	c := wire.TokenClaims{
		Issuer: rigIssuer, Subject: p.user.Subject, Audience: p.rig.cluster.UID,
		IssuedAt: now.Unix(), Expiry: now.Add(5 * time.Minute).Unix(), ID: rand.Text(),
		Session: p.session, Epoch: wire.Epoch{Generation: 1, Sequence: p.rig.epoch.Load()}, User: p.user, Roles: p.roles, Device: p.device,
	}
	c.Confirm.JKT = p.identity().Key
	return c
}

// token is a good access token, changed by changes.
func (p *person) token(changes ...func(*wire.TokenClaims)) string {
	p.rig.t.Helper()
	c := p.claims()
	for _, change := range changes {
		change(&c)
	}
	signer, err := p.rig.authorities.TokenSigner()
	must(p.rig.t, err)
	token, err := jwt.Signed(signer).Claims(c).Serialize()
	must(p.rig.t, err)
	return token
}

// prefacedConn puts a preface in front of the first bytes, which are the whole
// ClientHello, since crypto/tls writes it at once.
type prefacedConn struct {
	net.Conn
	person   *person
	audience string
	began    bool
}

func (c *prefacedConn) Write(b []byte) (int, error) {
	if c.began {
		return c.Conn.Write(b)
	}
	c.began = true
	hello, err := evidence.ReadHello(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	jws, err := evidence.SignProof(c.person.proof, evidence.ProofRequest{Audience: c.audience, Hello: hello.Message, Now: time.Now(), Chain: c.person.chain})
	if err != nil {
		return 0, err
	}
	if err := evidence.WritePreface(c.Conn, jws); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// dial opens a stream of the person's and does TLS in it.
func (p *person) dial(protocols ...string) *tls.Conn {
	p.rig.t.Helper()
	conn, err := p.dialErr(p.rig.kube.host, protocols...)
	must(p.rig.t, err)
	return conn
}

func (p *person) dialErr(serverName string, protocols ...string) (*tls.Conn, error) {
	raw, err := net.Dial("tcp", p.rig.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	secure := tls.Client(&prefacedConn{Conn: raw, person: p, audience: string(p.rig.cluster.UID)}, p.rig.tls(serverName, protocols...))
	if err := secure.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return secure, nil
}

// dialName opens a stream of the person's with another TLS name and does not
// look at the certificate.
func (p *person) dialName(serverName string) (*tls.Conn, error) {
	raw, err := net.Dial("tcp", p.rig.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	config := p.rig.tls(serverName, "http/1.1")
	config.InsecureSkipVerify = true
	secure := tls.Client(&prefacedConn{Conn: raw, person: p, audience: string(p.rig.cluster.UID)}, config)
	return secure, secure.Handshake()
}

// dialDirect opens a stream without a preface.
func (r *rig) dialDirect(serverName string, protocols ...string) (*tls.Conn, error) {
	return tls.Dial("tcp", r.listener.Addr().String(), r.tls(serverName, protocols...))
}

func (r *rig) tls(serverName string, protocols ...string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.cluster.CAPEM)
	return &tls.Config{ServerName: serverName, RootCAs: roots, NextProtos: protocols, MinVersion: tls.VersionTLS13}
}

// http is a client whose connections are the person's streams.
func (p *person) http(protocol string) *http.Client {
	transport := &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			return p.dialErr(p.rig.kube.host, protocol)
		},
		Protocols:          &http.Protocols{},
		DisableCompression: true,
	}
	transport.Protocols.SetHTTP2(protocol == "h2")
	transport.Protocols.SetHTTP1(protocol != "h2")
	p.rig.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// request is a request with the person's token.
func (p *person) request(method, path string, body io.Reader) *http.Request {
	p.rig.t.Helper()
	r, err := http.NewRequestWithContext(p.rig.t.Context(), method, "https://"+p.rig.kube.host+path, body)
	must(p.rig.t, err)
	r.Header.Set("Authorization", "Bearer "+p.token())
	return r
}

// reply is a whole answer.
type reply struct {
	code     int
	header   http.Header
	body     string
	decision string
}

func (r *rig) do(client *http.Client, request *http.Request) reply {
	r.t.Helper()
	response, err := client.Do(request)
	must(r.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(r.t, err)
	return reply{response.StatusCode, response.Header, string(body), response.Header.Get(wire.HeaderDecision)}
}

// get is the shortest way to ask for something.
func (p *person) get(path string) reply {
	p.rig.t.Helper()
	return p.rig.do(p.http("h2"), p.request(http.MethodGet, path, nil))
}

// raw writes bytes on a new HTTP/1.1 stream and reads one answer.
func (p *person) raw(text string) (*http.Response, string, error) {
	p.rig.t.Helper()
	conn := p.dial("http/1.1")
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte(text)); err != nil {
		return nil, "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, "", err
	}
	body, _ := io.ReadAll(response.Body)
	return response, string(body), nil
}

// seen is one request as upstream got it.
type seen struct {
	Method, URI, Proto, Host string
	Header                   http.Header
	Trailer                  http.Header
	Body                     string // SHA-256 when longer than 256 bytes
	Length                   int64
	Transfer                 []string
	Err                      error // of reading the body
}

// upstream is a kube-apiserver that records and answers as it is told.
type upstream struct {
	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex
	requests []seen
	answer   http.HandlerFunc
	review   func(*authorizationv1.SelfSubjectRulesReview)
	reviews  int
}

func newUpstreamServer(t testing.TB, http2 bool) *upstream {
	t.Helper()
	u := &upstream{t: t}
	u.server = httptest.NewUnstartedServer(http.HandlerFunc(u.serve))
	u.server.EnableHTTP2 = http2
	u.server.Config.ErrorLog = nil
	u.server.StartTLS()
	t.Cleanup(u.server.Close)
	return u
}

func (u *upstream) caPEM() []byte { return certificatePEM(u.server.Certificate()) }

// handle sets the answer to everything that a person asks.
func (u *upstream) handle(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = h
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Impersonate-User") == "" && u.own(w, r) {
		return
	}
	u.mu.Lock()
	answer := u.answer
	u.mu.Unlock()
	s := seen{Method: r.Method, URI: r.RequestURI, Proto: r.Proto, Host: r.Host, Header: r.Header.Clone(), Length: r.ContentLength, Transfer: r.TransferEncoding}
	if r.Header.Get("Upgrade") == "" {
		var body []byte
		body, s.Err = io.ReadAll(r.Body)
		s.Body, s.Trailer = string(body), r.Trailer.Clone()
		if len(body) > 256 {
			sum := sha256.Sum256(body)
			s.Body = hex.EncodeToString(sum[:])
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	u.mu.Lock()
	u.requests = append(u.requests, s)
	u.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
}

// own answers the questions of the gateway about itself.
func (u *upstream) own(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/readyz":
		_, _ = io.WriteString(w, "ok")
	case strings.HasSuffix(r.URL.Path, "/selfsubjectrulesreviews"):
		var review authorizationv1.SelfSubjectRulesReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		review.Status.ResourceRules = []authorizationv1.ResourceRule{{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}}}
		u.mu.Lock()
		u.reviews++
		if u.review != nil {
			u.review(&review)
		}
		u.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(review)
	default:
		return false
	}
	return true
}

// seen returns the recorded requests and forgets them.
func (u *upstream) seen() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	requests := u.requests
	u.requests = nil
	return requests
}

// none fails the test if upstream saw a request (U0).
func (u *upstream) none() {
	u.t.Helper()
	if requests := u.seen(); len(requests) > 0 {
		u.t.Errorf("upstream saw %d requests, the first: %s %s %v", len(requests), requests[0].Method, requests[0].URI, requests[0].Header)
	}
}

// whole returns the only request that upstream got completely; the remains of
// others may come in late.
func (u *upstream) whole() seen {
	u.t.Helper()
	requests := slices.DeleteFunc(u.seen(), func(s seen) bool { return s.Err != nil })
	if len(requests) != 1 {
		u.t.Fatalf("upstream saw %d whole requests, want one: %+v", len(requests), requests)
	}
	return requests[0]
}

// one returns the only request that upstream saw (U1).
func (u *upstream) one() seen {
	u.t.Helper()
	requests := u.seen()
	if len(requests) != 1 {
		u.t.Fatalf("upstream saw %d requests, want one: %+v", len(requests), requests)
	}
	return requests[0]
}

// directDialer opens streams without a preface under the cluster's direct name.
func (r *rig) directDialer(protocol string) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		return r.dialDirect(r.kube.directHost, protocol)
	}
}

// rawReply writes bytes on conn and reads one answer.
func rawReply(t testing.TB, conn net.Conn, text string) reply {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := io.WriteString(conn, text)
	must(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return reply{response.StatusCode, response.Header, string(body), response.Header.Get(wire.HeaderDecision)}
}

// replayed does what an edge could: it keeps a preface and sends it in front of
// a ClientHello of its own.
func (p *person) replayed() (*tls.Conn, error) {
	first, second := &recordingConn{}, &recordingConn{}
	for _, c := range []*recordingConn{first, second} {
		_ = tls.Client(&prefacedConn{Conn: c, person: p, audience: string(p.rig.cluster.UID)}, p.rig.tls(p.rig.kube.host)).Handshake()
	}
	raw, err := net.Dial("tcp", p.rig.listener.Addr().String())
	must(p.rig.t, err)
	preface := first.written.Bytes()
	preface = preface[:4+2+int(binary.BigEndian.Uint16(preface[4:6]))]
	if _, err := raw.Write(preface); err != nil {
		return nil, err
	}
	secure := tls.Client(raw, p.rig.tls(p.rig.kube.host))
	_ = secure.SetDeadline(time.Now().Add(10 * time.Second))
	return secure, secure.Handshake()
}

// recordingConn takes everything and answers nothing.
type recordingConn struct {
	net.Conn
	written bytes.Buffer
}

func (c *recordingConn) Write(b []byte) (int, error)      { return c.written.Write(b) }
func (c *recordingConn) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *recordingConn) Close() error                     { return nil }
func (c *recordingConn) SetDeadline(time.Time) error      { return nil }
func (c *recordingConn) SetReadDeadline(time.Time) error  { return nil }
func (c *recordingConn) SetWriteDeadline(time.Time) error { return nil }
