package session_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
	"github.com/kube-zt/zt/test/transcript"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// laptop is a person with a session: a real identity provider, a small gateway,
// and between the laptop and the gateway a network that can fail.
type laptop struct {
	*session.Session
	t    *testing.T
	gw   *gatewaytest.Gateway
	idp  *idp.Provider
	home profile.Home
	deps session.Deps
	net  *network
	log  *transcript.Buffer

	offset atomic.Int64 // of the laptop's wall clock
	pages  sync.WaitGroup
	opened atomic.Int64
}

// newLaptop knows its gateway and is not logged in. change, which may be nil,
// sees everything before first contact.
func newLaptop(t *testing.T, opts idp.Options, change func(*laptop)) *laptop {
	t.Helper()
	p, err := idp.Start(context.WithoutCancel(t.Context()), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	dir := filepath.Join(t.TempDir(), "zt")
	l := &laptop{
		t: t, idp: p, home: profile.Home{Dir: dir, Run: filepath.Join(dir, "run")}, net: new(network), log: new(transcript.Buffer),
		gw: gatewaytest.Start(t, wire.OIDC{
			Issuer: wire.Issuer(p.Issuer()), ClientID: p.ClientID(), CA: string(p.CAPEM()), Scopes: []string{"openid", "email", "offline_access"},
		}),
	}
	if err := l.home.Prepare(); err != nil {
		t.Fatal(err)
	}
	l.deps = session.Deps{
		Home: l.home, Version: "v1.0.0", Dial: l.net.DialContext,
		Log: slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: func() time.Time { return time.Now().Add(time.Duration(l.offset.Load())) },
	}
	t.Cleanup(l.pages.Wait)
	if change != nil {
		change(l)
	}
	return l
}

// meet makes first contact and keeps the profile.
func (l *laptop) meet(gateway string) *profile.Profile {
	l.t.Helper()
	gateway, pin, err := profile.ParseGateway(gateway)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := session.Meet(l.t.Context(), l.deps, gateway, pin)
	if err != nil {
		l.t.Fatal(err)
	}
	p.Clusters = map[wire.ClusterName]profile.ClusterPin{}
	if err := l.home.Save(p); err != nil {
		l.t.Fatal(err)
	}
	return p
}

// live brings a session to life.
func (l *laptop) live(p *profile.Profile) {
	l.t.Helper()
	s, err := session.New(l.deps, p)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Session = s
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	l.t.Cleanup(func() { cancel(); <-done })
}

func (l *laptop) prompt() session.Prompt {
	return session.Prompt{
		Out: io.Discard, Progress: func(string) {},
		Open: func(_ context.Context, page string) error {
			l.opened.Add(1)
			l.pages.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				if err := l.idp.Browser().Login(ctx, page, "alice"); err != nil {
					l.t.Errorf("browser: %v", err)
				}
			})
			return nil
		},
	}
}

func (l *laptop) login() {
	l.t.Helper()
	if err := l.Login(l.t.Context(), l.prompt()); err != nil {
		l.t.Fatalf("login: %v\n%s", err, l.log)
	}
}

// loggedIn is a laptop in the usual state.
func loggedIn(t *testing.T, opts idp.Options, change func(*laptop)) *laptop {
	t.Helper()
	l := newLaptop(t, opts, change)
	l.live(l.meet(l.gw.Pinned()))
	l.login()
	return l
}

// pass lets time go by, here and at the gateway. This machine's monotonic clock
// stands still meanwhile: to the laptop it is sleep.
func (l *laptop) pass(d time.Duration) {
	l.offset.Add(int64(d))
	l.gw.With(func(s *gatewaytest.State) { s.Ahead += d })
}

func (l *laptop) count(f func(*gatewaytest.State) int) int { return gatewaytest.Read(l.gw, f) }

// request asks cluster prod who is asking, the way a kubectl that waits for its
// CONNECT does.
func (l *laptop) request() (string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	token, _, err := l.Token(ctx, "prod")
	if err != nil {
		return "", err
	}
	pool := x509.NewCertPool()
	pool.AddCert(gatewaytest.Read(l.gw, func(s *gatewaytest.State) *x509.Certificate { return s.Clusters["prod"].CA.Cert }))
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			t := tunnel.Target{Host: "prod." + gatewaytest.Domain}
			stream, err := l.Open(ctx, &t)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(tunnel.Announced(stream, t.Audience, l.Proof), &tls.Config{RootCAs: pool, ServerName: t.Host, MinVersion: tls.VersionTLS13})
			return conn, conn.HandshakeContext(ctx)
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://prod."+gatewaytest.Domain+"/", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := transport.RoundTrip(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// network dials, and can let connections die without a word.
type network struct {
	mu    sync.Mutex
	conns []*mortal
}

func (n *network) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m := &mortal{Conn: conn}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, m)
	return m, nil
}

// change is another network: what stands is dead, and nobody is told.
func (n *network) change() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.conns {
		m.dead.Store(true)
	}
}

type mortal struct {
	net.Conn
	dead atomic.Bool
}

func (m *mortal) Read(b []byte) (int, error) {
	for {
		n, err := m.Conn.Read(b)
		if err != nil || !m.dead.Load() {
			return n, err
		}
	}
}

func (m *mortal) Write(b []byte) (int, error) {
	if m.dead.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

// eventually polls, because the other side of a wire has its own pace.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// The lid was closed for longer than a token lives, and the network is another
// one. The first command needs a token and a stream, and gets both.
func TestFirstCommandAfterSleep(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, nil)
	if _, err := l.request(); err != nil {
		t.Fatal(err)
	}
	l.net.change()
	l.pass(10 * time.Minute)
	if target, err := l.Target("prod." + gatewaytest.Domain); err != nil || target.Optimistic {
		t.Errorf("%+v %v: nothing can be promised before anybody has looked", target, err)
	}
	if body, err := l.request(); err != nil || !strings.HasSuffix(body, " on prod") {
		t.Errorf("%q %v\n%s", body, err, l.log)
	}
	if n := l.count(func(s *gatewaytest.State) int { return s.Minted }); n != 2 {
		t.Errorf("%d tokens, want one before and one after", n)
	}
}

// Whatever may turn a refusal into consent makes another target of the same host.
func TestTargetsHaveEpochs(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, nil)
	host := "prod." + gatewaytest.Domain
	last, err := l.Target(host)
	if err != nil {
		t.Fatal(err)
	}
	changed := func() bool {
		now, err := l.Target(host)
		if err != nil {
			t.Fatal(err)
		}
		changed := now.Epoch != last.Epoch
		last = now
		return changed
	}
	l.gw.With(func(s *gatewaytest.State) { s.Clusters["prod"].Access = "Requestable" })
	l.gw.Push(wire.Event{})
	eventually(t, "the catalogue", changed)
	id := l.Status().Session
	l.gw.Push(wire.Event{Kind: wire.EventSession, Session: &wire.SessionChange{Session: id}})
	eventually(t, "the roles", changed)
	l.login()
	if !changed() {
		t.Error("a new login is the same")
	}
}

// Nobody renews a live certificate but by the tunnel that it opens, and so its
// last seconds are as good as the ones before.
func TestLastSecondsOfACertificate(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.CertLife = time.Minute })
	})
	l.pass(55 * time.Second)
	if err := l.Ready(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, l.log)
	}
	if body, err := l.request(); err != nil {
		t.Errorf("%q %v", body, err)
	}
	got := gatewaytest.Read(l.gw, func(s *gatewaytest.State) [2]int { return [2]int{s.Renewed, s.RenewedExpired} })
	if got != [2]int{1, 0} {
		t.Errorf("%d renewals, %d of them as an expired one; want 1, 0", got[0], got[1])
	}
}

// An issuer that is away leaves what is left of the certificate.
func TestLastSecondsWithoutTheIssuer(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.CertLife = time.Minute })
	})
	l.gw.With(func(s *gatewaytest.State) {
		s.RefuseRenewal = &wire.Refusal{Reason: wire.ReasonIdPUnreachable, Message: "the issuer does not answer"}
	})
	l.pass(55 * time.Second)
	if err := l.Ready(t.Context()); err != nil {
		t.Errorf("%v", err)
	}
	l.pass(10 * time.Second)
	if err := l.Ready(t.Context()); err == nil {
		t.Error("ready with an expired certificate")
	}
}

// The laptop's clock was set forward, and the certificate is good all the same.
func TestCertificateThatOnlySeemsExpired(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.CertLife = time.Minute })
	})
	l.offset.Add(int64(2 * time.Minute))
	if err := l.Ready(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, l.log)
	}
	if body, err := l.request(); err != nil {
		t.Errorf("%q %v", body, err)
	}
	if n := l.count(func(s *gatewaytest.State) int { return s.Renewed }); n != 1 {
		t.Errorf("%d renewals, want one through the tunnel", n)
	}
}

// The edge's clock says that the certificate has expired, and ours does not: that
// is a reason to renew it and none to send the person to his provider.
func TestEdgeHoldsTheCertificateForExpired(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.CertLife, s.Slow = 5*time.Minute, 1 })
	})
	if body, err := l.request(); err != nil || !strings.HasSuffix(body, " on prod") {
		t.Errorf("%q %v\n%s", body, err, l.log)
	}
	if st := l.Status(); !st.LoggedIn || l.opened.Load() != 1 {
		t.Errorf("%+v, %d logins", st, l.opened.Load())
	}
	if n := l.count(func(s *gatewaytest.State) int { return s.RenewedExpired }); n != 1 {
		t.Errorf("%d renewals of an expired certificate, want 1", n)
	}
}

// A pin is given once. What is said about a gateway with a pin names the pin.
func TestPinIsRemembered(t *testing.T) {
	t.Parallel()
	l := newLaptop(t, idp.Options{}, nil)
	if _, err := session.Meet(t.Context(), l.deps, l.gw.URL(), ""); fault.Of(err).Exit != fault.ExitUntrusted {
		t.Fatalf("a stranger without a pin: %v", err)
	}
	known := l.meet(l.gw.Pinned())
	again, err := session.Meet(t.Context(), l.deps, l.gw.URL(), "")
	if err != nil {
		t.Fatal(err)
	}
	if again.Pin != known.Pin {
		t.Errorf("pin %q, want %q", again.Pin, known.Pin)
	}
	l.live(known)
	l.gw.With(func(s *gatewaytest.State) { s.OIDC.ClientID = "another" })
	f := fault.Of(l.Login(t.Context(), l.prompt()))
	if want := "if its administrator confirms it: kubectl zt trust '" + l.gw.Pinned() + "'"; len(f.Hints) != 1 || f.Hints[0] != want {
		t.Errorf("%+v, want %q", f, want)
	}
}

// The gateway allowed device codes once, and does so no more. Who has not asked for
// one by name gets the page.
func TestDeviceCodeThatIsNoLongerAllowed(t *testing.T) {
	t.Parallel()
	l := newLaptop(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.OIDC.DeviceCode = true })
	})
	l.live(l.meet(l.gw.Pinned()))
	l.gw.With(func(s *gatewaytest.State) { s.OIDC.DeviceCode = false })
	pr := l.prompt()
	pr.DeviceCode = session.DeviceCodeOnly
	if f := fault.Of(l.Login(t.Context(), pr)); f == nil || f.Exit != fault.ExitRefused || l.opened.Load() != 0 {
		t.Errorf("asked for by name: %+v", f)
	}
	pr.DeviceCode = session.DeviceCodeIfAllowed
	if err := l.Login(t.Context(), pr); err != nil || l.opened.Load() != 1 {
		t.Errorf("offered: %v, %d pages", err, l.opened.Load())
	}
}

// What the issuer gave for a login that came to nothing is given back.
func TestFailedLoginLeavesNoTokenBehind(t *testing.T) {
	t.Parallel()
	l := newLaptop(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.WrongProof = true })
	})
	l.live(l.meet(l.gw.Pinned()))
	if f := fault.Of(l.Login(t.Context(), l.prompt())); f == nil || f.Exit != fault.ExitUntrusted {
		t.Fatalf("%+v", f)
	}
	if n := l.idp.Counters().Revocations; n != 1 {
		t.Errorf("%d revocations, want 1", n)
	}
}

// Control is not called connected before it has spoken.
func TestControlThatWasNeverHeard(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, nil)
	if st := l.Status(); st.Control != "connected" {
		t.Errorf("%+v", st)
	}
	state, err := l.Export()
	if err != nil {
		t.Fatal(err)
	}
	heir, err := session.New(l.deps, l.Profile()) // and no Run: it hears nothing
	if err != nil {
		t.Fatal(err)
	}
	if err := heir.Import(state); err != nil {
		t.Fatal(err)
	}
	if st := heir.Status(); !st.LoggedIn || st.Control != "the gateway has not answered yet" {
		t.Errorf("%+v", st)
	}
}

// A gateway that nothing is heard of does not make clusters reachable.
func TestClustersOfAGatewayThatIsGone(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, nil)
	all := func(state string) bool {
		list, err := l.Clusters(t.Context())
		if err != nil || len(list) == 0 {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(list, func(c wire.Cluster) bool { return c.State != state })
	}
	if !all(wire.StateReachable) {
		t.Error("they are not reachable")
	}
	l.gw.Close()
	eventually(t, "nobody knows", func() bool { return all(wire.StateUnknown) })
}

// panicky panics at one message, once.
type panicky struct {
	slog.Handler
	at   string
	once *sync.Once
}

func (p panicky) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == p.at {
		p.once.Do(func() { panic("boom") })
	}
	return p.Handler.Handle(ctx, r)
}

// A panic in what keeps a session alive ends that session, and says so.
func TestPanicEndsOneSession(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, func(l *laptop) {
		l.deps.Log = slog.New(panicky{l.deps.Log.Handler(), "events interrupted", new(sync.Once)})
	})
	l.gw.Drop()
	eventually(t, "the end", func() bool { return !l.LoggedIn() })
	if f := fault.Of(l.Ready(t.Context())); f.Exit != fault.ExitLogin || !strings.Contains(f.What, "internal error") {
		t.Errorf("%+v", f)
	}
	l.login() // and another one is as good as the first
	if body, err := l.request(); err != nil {
		t.Errorf("%q %v", body, err)
	}
}

// A target that missed the renewed certificate is shown it again: its streams would
// end with the old one.
func TestRenewalIsShownAgain(t *testing.T) {
	t.Parallel()
	const host = "prod." + gatewaytest.Domain
	l := loggedIn(t, idp.Options{}, func(l *laptop) {
		l.gw.With(func(s *gatewaytest.State) { s.CertLife = time.Minute })
		l.deps.InUse = func(profile.Name) map[string]int { return map[string]int{host: 1} }
	})
	l.gw.With(func(s *gatewaytest.State) { s.BreakConnects = 1 })
	l.pass(40 * time.Second)
	eventually(t, "the renewal arrives", func() bool {
		return l.count(func(s *gatewaytest.State) int { return s.Prefaces[host+":443"] }) == 1
	})
	if n := l.count(func(s *gatewaytest.State) int { return s.Renewed }); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
}

// A token that was lost on the way is asked for once more, and once only.
func TestTokenIsAskedForAgain(t *testing.T) {
	t.Parallel()
	l := loggedIn(t, idp.Options{}, nil)
	l.gw.With(func(s *gatewaytest.State) { s.BreakTokens = 1 })
	if _, _, err := l.Token(t.Context(), "prod"); err != nil {
		t.Errorf("broken once: %v", err)
	}
	l.gw.With(func(s *gatewaytest.State) { s.BreakTokens = 3 })
	_, _, err := l.Token(t.Context(), "dev")
	if f := fault.Of(err); f == nil || f.Exit != fault.ExitUnreachable || len(f.Hints) == 0 {
		t.Errorf("broken for good: %+v", f)
	}
	if n := l.count(func(s *gatewaytest.State) int { return s.BreakTokens }); n != 1 {
		t.Errorf("%d attempts left of 3, want 1", n)
	}
}
