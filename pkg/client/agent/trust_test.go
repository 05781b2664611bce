package agent_test

import (
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestV016HostileKubeconfig(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})

	// A profile that nobody ever trusted.
	req := attended(agent.OpCredential)
	req.Profile = "evil.test"
	_, err := r.client().Do(t.Context(), req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(true)})
	f := wantFault(t, err, fault.ExitUntrusted, "unknown gateway")
	if len(f.Hints) == 0 || !strings.Contains(f.Hints[0], "kubectl zt trust") {
		t.Errorf("hints: %q", f.Hints)
	}

	// A known profile, and a server of somebody else. The token is in the cache.
	r.trust()
	r.login()
	if _, err := r.credential(false); err != nil {
		t.Fatal(err)
	}
	for name, info := range map[string]string{
		"another server": strings.ReplaceAll(r.execInfo(true), "https://prod."+gatewaytest.Domain, "https://evil.test"),
		"no server told": `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":true}}`,
		"another CA":     strings.Replace(r.execInfo(true), "certificate-authority-data", "certificate-authority-xxxx", 1),
	} {
		doc, err := r.client().Do(t.Context(), attended(agent.OpCredential), agent.CredentialArgs{Cluster: "prod", ExecInfo: info})
		wantFault(t, err, fault.ExitUntrusted, "")
		if len(doc) > 0 {
			t.Errorf("%s: got %s", name, doc)
		}
	}

	// Nobody is sent to a login page for the sake of such a kubeconfig either.
	var out agent.LogoutResult
	if err := r.get(attended(agent.OpLogout), agent.LogoutArgs{}, &out); err != nil {
		t.Fatal(err)
	}
	<-r.done // nobody is logged in any more: the agent leaves
	r.start()
	before := r.opened.Load()
	_, err = r.client().Do(t.Context(), attended(agent.OpCredential), agent.CredentialArgs{
		Cluster: "prod", ExecInfo: strings.ReplaceAll(r.execInfo(true), "https://prod."+gatewaytest.Domain, "https://evil.test"),
	})
	wantFault(t, err, fault.ExitUntrusted, "no token leaves")
	if r.opened.Load() != before {
		t.Error("a login page was opened")
	}
}

func TestChangedGatewayIsRefusedUntilTrusted(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.gw.With(func(s *gatewaytest.State) { s.OIDC.ClientID = "somebody-else" })
	err := r.get(attended(agent.OpLogin), agent.LoginArgs{}, nil)
	f := wantFault(t, err, fault.ExitUntrusted, "client id: kubectl-zt -> somebody-else")
	if len(f.Hints) == 0 || !strings.Contains(f.Hints[0], "kubectl zt trust") {
		t.Errorf("hints: %q", f.Hints)
	}
	if r.opened.Load() != 0 {
		t.Error("a login page was opened")
	}
	var res agent.TrustResult
	if err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL(), Pin: pinOf(r)}, &res); err != nil || res.Saved || len(res.Changes) != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	if err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL(), Pin: pinOf(r), Accept: true}, &res); err != nil || !res.Saved {
		t.Fatalf("%+v %v", res, err)
	}
}

func TestUnknownAuthorityIsShownAndNotTrusted(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL()}, nil)
	f := wantFault(t, err, fault.ExitUntrusted, "sha256="+pinOf(r))
	if len(f.Hints) != 2 || !strings.Contains(f.Hints[1], r.gw.URL()+"#sha256="+pinOf(r)) {
		t.Errorf("hints: %q", f.Hints)
	}
	err = r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL(), Pin: strings.Repeat("0", 64)}, nil)
	wantFault(t, err, fault.ExitUntrusted, "does not stand under the pinned authority")
	if names, _ := r.home.List(); len(names) != 0 {
		t.Errorf("profiles were saved: %v", names)
	}
}

func TestChangedClusterIsRefusedUntilTrusted(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	if _, err := r.credential(false); err != nil {
		t.Fatal(err)
	}
	r.gw.AddCluster("prod") // made anew: another CA, another UID
	r.gw.Push(wire.Event{})
	eventually(t, "the change is noticed", func() bool {
		_, err := r.credential(false)
		return err != nil
	})
	err := r.get(attended(agent.OpConnect), agent.ClusterArgs{Cluster: "prod"}, nil)
	wantFault(t, err, fault.ExitUntrusted, "another identity than before")
	var res agent.RepinResult
	if err := r.get(attended(agent.OpRepin), agent.RepinArgs{Cluster: "prod"}, &res); err != nil || res.Old == res.New {
		t.Fatalf("%+v %v", res, err)
	}
	_, err = r.credential(false)
	wantFault(t, err, fault.ExitUntrusted, "no token leaves for it") // it was only shown
	// It changes once more between the look and the yes.
	seen := res.New
	r.gw.AddCluster("prod")
	r.gw.Push(wire.Event{})
	eventually(t, "the second change arrives", func() bool {
		err := r.get(attended(agent.OpRepin), agent.RepinArgs{Cluster: "prod"}, &res)
		return err == nil && res.New != seen
	})
	err = r.get(attended(agent.OpRepin), agent.RepinArgs{Cluster: "prod", Accept: &seen}, nil)
	wantFault(t, err, fault.ExitUntrusted, "yet another identity")
	if err := r.get(attended(agent.OpRepin), agent.RepinArgs{Cluster: "prod", Accept: &res.New}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.credential(false); err != nil {
		t.Error(err)
	}
	if err := r.get(attended(agent.OpConnect), agent.ClusterArgs{Cluster: "prod"}, nil); err != nil {
		t.Error(err)
	}
}
