package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestLoginAndCredential(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	res := r.login()
	if res.Already || res.Status.User != "alice@example.com" || res.Status.Clusters != 2 {
		t.Errorf("%+v", res.Status)
	}
	if res := r.login(); !res.Already {
		t.Error("logged in twice without being asked to")
	}
	token, err := r.credential(false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.credential(false)
	if err != nil || again != token {
		t.Errorf("a fresh token was not reused: %v", err)
	}
	var st agent.StatusResult
	if err := r.get(agent.Request{Op: agent.OpStatus}, nil, &st); err != nil || len(st.Sessions) != 1 || st.Sessions[0].Edge != "connected" {
		t.Errorf("%+v %v", st, err)
	}
}

// all runs n plugins at once.
func (r *rig) all(n int, interactive bool) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = r.credential(interactive) })
	}
	wg.Wait()
	return errs
}

func TestV009ParallelCallersShareOneLogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	if err := errors.Join(r.all(20, true)...); err != nil {
		t.Fatal(err)
	}
	if n := r.opened.Load(); n != 1 {
		t.Errorf("%d pages were opened, want 1", n)
	}
	if c := r.idp.Counters(); c.CodeExchanges != 1 || c.Logins != 1 {
		t.Errorf("%d code exchanges, %d logins, want 1 and 1", c.CodeExchanges, c.Logins)
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.Minted }); n != 1 {
		t.Errorf("%d tokens were minted for one cluster, want 1", n)
	}
}

func TestV010ParallelCallersShareOneRefresh(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.gw.With(func(s *gatewaytest.State) { s.CertLife, s.TokenLife = time.Minute, time.Minute })
	r.trust()
	r.login()
	// Everything has ended by both clocks: certificate, token, and the session's
	// freshness at the issuer.
	r.offset.Store(int64(90 * time.Second))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 90 * time.Second })
	if err := errors.Join(r.all(20, false)...); err != nil {
		t.Fatal(err)
	}
	if c := r.idp.Counters(); c.Refreshes != 1 || c.Reuses != 0 || c.CodeExchanges != 1 {
		t.Errorf("%d refreshes, %d reuses, %d code exchanges, want 1, 0 and 1", c.Refreshes, c.Reuses, c.CodeExchanges)
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.RenewedExpired }); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
	// The rotated token was kept: the next renewal works, too.
	r.offset.Store(int64(3 * time.Minute))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 3 * time.Minute })
	if _, err := r.credential(false); err != nil {
		t.Fatal(err)
	}
	if c := r.idp.Counters(); c.Refreshes != 2 || c.Reuses != 0 {
		t.Errorf("%d refreshes, %d reuses, want 2 and 0", c.Refreshes, c.Reuses)
	}
}

func TestV012SpentRefreshToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.gw.With(func(s *gatewaytest.State) { s.CertLife = time.Minute })
	r.trust()
	r.login()
	r.idp.SetFaults(idp.Faults{TokenError: "invalid_grant", TokenErrorText: "token is \x1b[31mspent"})
	r.offset.Store(int64(90 * time.Second))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 90 * time.Second })

	// No terminal, or interactiveMode Never: client-go says interactive false.
	began := time.Now()
	_, err := r.credential(false)
	f := wantFault(t, err, fault.ExitLogin, "")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if len(f.Hints) == 0 || !strings.Contains(f.Hints[0], "kubectl zt login") || strings.Contains(f.What, "\x1b") {
		t.Errorf("%+v", f)
	}
	if n := r.opened.Load(); n != 1 {
		t.Errorf("%d pages, want only that of the first login", n)
	}

	// With one: exactly one new login, whoever asks.
	r.idp.SetFaults(idp.Faults{})
	if err := errors.Join(r.all(5, true)...); err != nil {
		t.Fatal(err)
	}
	if n := r.opened.Load(); n != 2 {
		t.Errorf("%d pages, want one more", n)
	}
}

// N4, B15: a login that comes to nothing is not tried again by itself.
func TestAutomaticLoginHasABudget(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.idp.SetFaults(idp.Faults{ErrorCallback: "not today"})
	r.mayFail.Store(true)
	_, err := r.credential(true)
	wantFault(t, err, fault.ExitRefused, "not today")
	for range 50 { // an IDE that polls
		_, err := r.credential(true)
		wantFault(t, err, fault.ExitLogin, "came to nothing")
	}
	if n := r.opened.Load(); n != 1 {
		t.Errorf("%d pages, want 1", n)
	}
	began := time.Now()
	_, err = r.credential(false)
	wantFault(t, err, fault.ExitLogin, "not logged in")
	if took := time.Since(began); took > time.Second {
		t.Errorf("an unattended caller waited %s", took)
	}
	// Asked for by name it is always tried, and restores the budget.
	r.idp.SetFaults(idp.Faults{})
	r.login()
	if _, err := r.credential(true); err != nil {
		t.Error(err)
	}
}

// N4: however many programs find the session over at one moment, one page opens and
// all of them go on.
func TestEndedSessionIsOnePage(t *testing.T) {
	t.Parallel()
	n := 200
	if os.Getenv("ZT_SOAK") == "" {
		n /= 5 // U2: forty at a time
	}
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	r.endSessions()
	pages := r.opened.Load()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { // each of them of a kubectl of its own
			req := attended(agent.OpCredential)
			req.Parent = 1000 + i
			_, errs[i] = r.client().Do(t.Context(), req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(true)})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := r.opened.Load() - pages; got != 1 {
		t.Errorf("%d pages were opened, want 1", got)
	}
}

// N4, B15: an IDE whose kubectls find nobody logged in every two seconds, for hours,
// opens one page at the most, also when each kubectl is a process of its own and the
// provider is down or says no; and whom nobody watches is answered from memory.
func TestPollingForHoursOpensOnePage(t *testing.T) {
	t.Parallel()
	every := 2 * time.Second
	if os.Getenv("ZT_SOAK") == "" {
		every *= 20
	}
	for name, faults := range map[string]idp.Faults{
		"down":     {Down: true},
		"says no":  {ErrorCallback: "not today"},
		"no token": {TokenError: "server_error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, idp.Options{})
			r.trust()
			r.mayFail.Store(true)
			r.idp.SetFaults(faults)
			poll := func(parent int, interactive bool) error {
				req := attended(agent.OpCredential)
				req.Parent = parent
				_, err := r.client().Do(t.Context(), req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(interactive)})
				return err
			}
			var first idp.Counters
			for at := every; at <= 2*time.Hour; at += every {
				r.offset.Store(int64(at))
				r.gw.With(func(s *gatewaytest.State) { s.Ahead = at })
				if err := poll(1000+int(at/every), true); err == nil {
					t.Fatal("a token for nobody")
				}
				if at == every {
					first = r.idp.Counters()
				}
			}
			if n := r.opened.Load(); n > 1 {
				t.Errorf("%d pages in two hours, want one at the most", n)
			}
			began := time.Now()
			err := poll(1, false)
			f := wantFault(t, err, fault.ExitLogin, "not logged in")
			if took := time.Since(began); took > time.Second || len(f.Hints) == 0 {
				t.Errorf("an unattended caller was told %+v after %v", f, took)
			}
			if diff := cmp.Diff(first, r.idp.Counters()); diff != "" {
				t.Errorf("after the first of them the provider was asked again: %s", diff)
			}
		})
	}
}

// The person gives up one kubectl while another waits for the same page: what
// becomes of the login counts, not what became of who began it.
func TestLeavingALoginToOthersCostsNoBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	page := make(chan string, 1)
	ctx, interrupt := context.WithCancel(t.Context())
	first := r.client()
	first.Open = func(_ context.Context, url string) error {
		select {
		case page <- url:
		default:
		}
		return nil
	}
	begun, waited := make(chan error, 1), make(chan error, 1)
	ask := func(ctx context.Context, c *agent.Client, parent int) error {
		req := attended(agent.OpCredential)
		req.Parent = parent
		_, err := c.Do(ctx, req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(true)})
		return err
	}
	go func() { begun <- ask(ctx, first, 1) }()
	url := <-page
	second, joined := r.client(), make(chan struct{}, 1)
	second.Notice = func([]byte) { // the page's address, to who comes late
		select {
		case joined <- struct{}{}:
		default:
		}
	}
	go func() { waited <- ask(t.Context(), second, 2) }()
	<-joined
	interrupt()
	if err := <-begun; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := r.idp.Browser().Login(t.Context(), url, r.user); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}

	// The next session may begin a login by itself.
	r.endSessions()
	if err := ask(t.Context(), r.client(), 3); err != nil {
		t.Error(err)
	}

	// One that everybody has left came to nothing, and that does count.
	r.endSessions()
	ctx, interrupt = context.WithCancel(t.Context())
	go func() { begun <- ask(ctx, first, 4) }()
	<-page
	interrupt()
	<-begun
	eventually(t, "the login is called off", func() bool {
		// Until then it might be joined, and nobody looks at its page.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := ask(ctx, first, 5)
		return err != nil && strings.Contains(fault.Of(err).What, "came to nothing")
	})
}

// endSessions makes the laptop hear that its session is over.
func (r *rig) endSessions() {
	r.t.Helper()
	r.gw.End("enough")
	eventually(r.t, "the end arrives", func() bool {
		_, err := r.credential(false)
		return err != nil
	})
}

// client-go runs a failing plugin up to five times per kubectl.
func TestOneProcessIsToldOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	told := 0
	for range 5 {
		_, err := r.credential(false)
		if f := wantFault(t, err, fault.ExitLogin, "not logged in"); !f.Told {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
	req := attended(agent.OpCredential)
	req.Parent = 1 // another kubectl
	_, err := r.client().Do(t.Context(), req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(false)})
	if f := wantFault(t, err, fault.ExitLogin, "not logged in"); f.Told {
		t.Error("another process was not told")
	}
}

// A person who does not wait for the end has asked for it all the same, and no
// file is forgotten that was not cleaned.
func TestSessionEndedAtTheGateway(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	r.gw.End("revoked by \x1b]52;c;x\acarol")
	eventually(t, "the end arrives", func() bool {
		_, err := r.credential(false)
		return err != nil
	})
	_, err := r.credential(false)
	f := wantFault(t, err, fault.ExitLogin, "revoked by")
	if strings.ContainsAny(f.What, "\x1b\a") {
		t.Errorf("%q", f.What)
	}
	// A person at the terminal just logs in again.
	if _, err := r.credential(true); err != nil {
		t.Error(err)
	}
}

func TestRefusalOfATokenIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	r.gw.With(func(s *gatewaytest.State) {
		s.RefuseToken = &wire.Refusal{Reason: wire.ReasonClusterDisabled, Message: "cluster prod is switched off", Decision: "d-42"}
	})
	_, err := r.credential(true)
	f := wantFault(t, err, fault.ExitRefused, "switched off")
	if f.Decision != "d-42" || len(f.Hints) == 0 {
		t.Errorf("%+v", f)
	}
	if n := r.opened.Load(); n != 1 {
		t.Error("a refusal led to a login page")
	}
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.gw.With(func(s *gatewaytest.State) {
		s.RefuseCheck = &wire.Refusal{Reason: wire.ReasonDeviceRefused, Message: "this device is refused", Decision: "d-7"}
	})
	err := r.get(attended(agent.OpLogin), agent.LoginArgs{}, nil)
	f := wantFault(t, err, fault.ExitRefused, "refused")
	if len(f.Hints) == 0 || f.Hints[0] != "kubectl zt device enroll" || f.Decision != "d-7" {
		t.Errorf("%+v", f)
	}
	if r.opened.Load() != 0 {
		t.Error("a refused device got to the login page")
	}
	r.gw.With(func(s *gatewaytest.State) { s.RefuseCheck = nil })
	var state wire.DeviceState
	if err := r.get(attended(agent.OpEnroll), nil, &state); err != nil || state.Phase != "Pending" || state.Owner != "alice@example.com" {
		t.Fatalf("%+v %v", state, err)
	}
	if n := r.idp.Counters().Revocations; n != 1 {
		t.Errorf("the login of the enrolment was revoked %d times, want once", n)
	}
	var dev agent.DeviceResult
	if err := r.get(attended(agent.OpDevice), nil, &dev); err != nil || dev.ID != state.ID || dev.Gateway != nil {
		t.Errorf("%+v %v", dev, err)
	}
}

func TestDeviceCode(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{DeviceInterval: time.Second})
	r.trust()
	req := attended(agent.OpLogin)
	req.Display = false
	err := r.get(req, agent.LoginArgs{DeviceCode: true}, nil)
	wantFault(t, err, fault.ExitRefused, "does not allow login by device code")

	r.gw.With(func(s *gatewaytest.State) { s.OIDC.DeviceCode = true })
	c := r.client()
	c.Notice = func(b []byte) { r.approve(string(b)) }
	var res agent.LoginResult
	if err := c.Get(t.Context(), req, agent.LoginArgs{DeviceCode: true}, &res); err != nil {
		t.Fatal(err)
	}
	if res.Status.User != "alice@example.com" || r.opened.Load() != 0 {
		t.Errorf("%+v, %d pages", res.Status, r.opened.Load())
	}
}

// Without a display the code is offered by itself, to kubectl as well, where the
// gateway allows it; where it does not, nobody is kept waiting.
func TestDeviceCodeIsOfferedByItself(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name             string
		allowed, display bool
	}{
		{name: "allowed, no display", allowed: true},
		{name: "allowed, and a display", allowed: true, display: true},
		{name: "not allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, idp.Options{DeviceInterval: time.Second})
			r.gw.With(func(s *gatewaytest.State) { s.OIDC.DeviceCode = tc.allowed })
			r.trust()
			codes := 0
			c := r.client()
			c.Notice = func(b []byte) {
				if strings.Contains(string(b), "code:") {
					codes++
				}
				r.approve(string(b))
			}
			req := attended(agent.OpCredential)
			req.Display = tc.display
			_, err := c.Do(t.Context(), req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(true)})
			pages := int(r.opened.Load())
			switch {
			case !tc.allowed:
				wantFault(t, err, fault.ExitLogin, "not logged in")
				if pages != 0 || codes != 0 {
					t.Errorf("%d pages, %d codes", pages, codes)
				}
			case err != nil:
				t.Error(err)
			case tc.display && (pages != 1 || codes != 0), !tc.display && (pages != 0 || codes != 1):
				t.Errorf("%d pages, %d codes", pages, codes)
			}
		})
	}
}

func TestWrongClock(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 20 * time.Minute })
	err := r.get(attended(agent.OpLogin), agent.LoginArgs{}, nil)
	wantFault(t, err, fault.ExitFailed, "clock skew: this computer is 20m0s behind the gateway")
}

func TestOldClientIsToldSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.gw.With(func(s *gatewaytest.State) { s.Minimum = "v1.2.0" })
	err := r.get(attended(agent.OpLogin), agent.LoginArgs{}, nil)
	wantFault(t, err, fault.ExitRefused, "needs kubectl-zt v1.2.0 or newer, this is v1.0.0")
}

func TestAnotherProtocolIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	err := rawRequest(t, r.home.Socket(), `{"protocol":99,"op":"status"}`)
	f := wantFault(t, err, fault.ExitFailed, "protocol 99")
	if diff := cmp.Diff([]string{"kubectl zt agent --stop"}, f.Hints); diff != "" {
		t.Error(diff)
	}
	// And what the hint says does help.
	conn, err := net.Dial("unix", r.home.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := `{"protocol":99,"op":"stop"}`
	fmt.Fprintf(conn, "q\x00\x00\x00%c%s", len(request), request)
	select {
	case <-r.done:
	case <-time.After(10 * time.Second):
		t.Error("the agent does not stop")
	}
}

// Who works with --profile is not sent to another one.
func TestHintsMeanTheProfileThatWasAskedFor(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, nil)
	r.endSessions()
	_, err := r.credential(false)
	if f := wantFault(t, err, fault.ExitLogin, ""); f.Hints[0] != "kubectl zt login" {
		t.Errorf("of the current profile: %q", f.Hints)
	}
	if err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL(), Pin: pinOf(r), Name: "second"}, nil); err != nil {
		t.Fatal(err)
	}
	const want = "kubectl zt --profile zt.test login"
	_, err = r.credential(false)
	if f := wantFault(t, err, fault.ExitLogin, ""); f.Hints[0] != want {
		t.Errorf("to the plugin: %q", f.Hints)
	}
	if _, status := r.rawConnect(access, "prod.zt.test"); !strings.Contains(status, "("+want+")") {
		t.Errorf("to kubectl: %q", status)
	}
}

func TestHandlerPanicEndsThatRequestOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	r.gw.With(func(s *gatewaytest.State) { s.PanicOnToken = true })
	if _, err := r.credential(false); err == nil {
		t.Fatal("got a token from a handler that panicked")
	}
	r.gw.With(func(s *gatewaytest.State) { s.PanicOnToken = false })
	if _, err := r.credential(false); err != nil {
		t.Error(err)
	}
}

// Where the issuer vouches for nobody without a new login, the session lasts as
// long as its certificate and is asked for no more.
func TestIssuerWithoutRefresh(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.gw.With(func(s *gatewaytest.State) {
		s.CertLife = time.Minute
		s.RefuseRenewal = wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "the identity provider vouches for nobody")
	})
	r.trust()
	r.login()
	r.offset.Store(int64(40 * time.Second)) // past half life
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 40 * time.Second })
	eventually(t, "the renewal is tried", func() bool { return r.idp.Counters().Refreshes == 1 })
	if _, err := r.credential(false); err != nil {
		t.Errorf("the certificate is still good: %v", err)
	}
	r.offset.Store(int64(90 * time.Second))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 90 * time.Second })
	eventually(t, "the issuer's word is taken as the last", func() bool {
		_, err := r.credential(false)
		return strings.Contains(wantFault(t, err, fault.ExitLogin, "").What, "wants a new login")
	})
	if n := r.idp.Counters().Refreshes; n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

// A deleted home takes its agent with it.
func TestAgentLeavesWithItsSocket(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	if err := os.Remove(r.home.Socket()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
	case <-time.After(15 * time.Second):
		t.Error("the agent stays although nobody can find it")
	}
}

// With another gateway still in use the agent stays, but the port of the
// kubeconfigs goes with the last profile that has one.
