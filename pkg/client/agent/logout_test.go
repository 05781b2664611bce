package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/test/idp"
)

func TestV076Logout(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	access := r.access()
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(r.home.Dir)); err != nil {
		t.Fatal(err)
	}
	before := r.idp.Counters().Revocations

	var out agent.LogoutResult
	if err := r.get(attended(agent.OpLogout), agent.LogoutArgs{Forget: true}, &out); err != nil {
		t.Fatal(err)
	}
	if !out.WasLoggedIn || out.Gateway != "" || out.Issuer != "" {
		t.Errorf("%+v", out)
	}
	if n := r.idp.Counters().Revocations - before; n != 1 {
		t.Errorf("%d revocations at the issuer, want 1", n)
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.Logouts }); n != 1 {
		t.Errorf("%d logouts at the gateway, want 1", n)
	}
	<-r.done // the agent had nothing left to stay for
	if _, err := os.Stat(r.home.Socket()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	assertClosed(t, access.Port)
	for _, dir := range []string{"profiles", "keys"} {
		if left, err := os.ReadDir(filepath.Join(r.home.Dir, dir)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v %v", dir, left, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(r.home.Dir, "tunnel.json")); err == nil && strings.Contains(string(data), access.Secret) {
		t.Error("the proxy's secret is still on disk")
	}

	// A copy of the directory, made while the session was live.
	if err := os.Rename(copied, r.home.Dir+"2"); err != nil {
		t.Fatal(err)
	}
	r.home.Dir += "2"
	tighten(t, r.home.Dir)
	r.start()
	_, err := r.credential(false)
	wantFault(t, err, fault.ExitLogin, "not logged in")
}

func TestLogoutGoesOnWithoutTheOneWhoAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	for _, file := range []string{"/dev/null", "/dev/zero"} {
		if err := r.get(attended(agent.OpAccess), agent.AccessArgs{File: file}, nil); err != nil {
			t.Fatal(err)
		}
	}
	before := r.idp.Counters().Revocations
	ctx, interrupt := context.WithCancel(t.Context())
	c := r.client()
	c.Progress = func(string) { interrupt() } // as soon as it has begun
	if err := c.Get(ctx, attended(agent.OpLogout), agent.LogoutArgs{Forget: true}, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-r.done
	if n := r.idp.Counters().Revocations - before; n != 1 {
		t.Errorf("%d revocations at the issuer, want 1", n)
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.Logouts }); n != 1 {
		t.Errorf("%d logouts at the gateway, want 1", n)
	}
	p, err := r.home.Load(gatewaytest.Domain)
	if err != nil || len(p.Kubeconfigs) != 2 {
		t.Fatalf("%+v %v", p, err)
	}

	r.start()
	c = r.client()
	c.Clean = func(_ context.Context, what agent.Cleaning) []string {
		if what.Profile != gatewaytest.Domain || len(what.Files) != 2 {
			t.Errorf("%+v", what)
		}
		return what.Files[:1]
	}
	if err := c.Get(t.Context(), attended(agent.OpLogout), agent.LogoutArgs{}, nil); err != nil {
		t.Fatal(err)
	}
	<-r.done
	if p, err = r.home.Load(gatewaytest.Domain); err != nil || len(p.Kubeconfigs) != 1 || p.Kubeconfigs[0] != "/dev/zero" {
		t.Errorf("%+v %v", p, err)
	}
}

func TestLogoutOfOneOfTwoGateways(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, nil)
	if err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL(), Pin: pinOf(r), Name: "second"}, nil); err != nil {
		t.Fatal(err)
	}
	second := attended(agent.OpLogin)
	second.Profile = "second"
	if err := r.get(second, agent.LoginArgs{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.get(attended(agent.OpLogout), agent.LogoutArgs{}, nil); err != nil {
		t.Fatal(err)
	}
	assertClosed(t, access.Port)
	var st agent.StatusResult
	if err := r.get(agent.Request{Op: agent.OpStatus}, nil, &st); err != nil || len(st.Sessions) != 2 {
		t.Fatalf("%+v %v", st, err)
	}
	for _, s := range st.Sessions {
		if s.LoggedIn != (s.Profile == "second") {
			t.Errorf("%s: logged in %v", s.Profile, s.LoggedIn)
		}
	}
}
