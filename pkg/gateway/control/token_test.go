package control

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestRevokedRoleInToken: a role that was taken gives nothing in a new token, and
// the token says which it was, so that what the role denied stays denied.
func TestRevokedRoleInToken(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	r.load("objects.yaml", strings.Replace(objects, "groups: [employees]", "groups: [employees, all-admins]", 1))
	l := r.laptop().login("carol")
	client := l.stream()
	claims := func() wire.TokenClaims {
		t.Helper()
		token, refusal := l.mint(client, "prod")
		if refusal != nil {
			t.Fatal(refusal)
		}
		return r.claims(token)
	}
	before := claims()
	if !slices.Equal(before.Roles, []wire.Role{"admins", "devs"}) || before.Revoked != nil {
		t.Fatalf("from the start: %v, revoked %v", before.Roles, before.Revoked)
	}
	r.revoke(v1alpha1.RevocationSpec{Role: "admins"})
	eventually(t, "the role is revoked", func() bool { return len(r.registry.Removed(r.factsOfClaims(l, before))) > 0 })
	if after := claims(); !slices.Equal(after.Roles, []wire.Role{"devs"}) || !slices.Equal(after.Revoked, []wire.Role{"admins"}) {
		t.Errorf("%v, revoked %v", after.Roles, after.Revoked)
	}
}

// TestRevokedRoleIsSaid: who has lost the role that showed him a cluster is not told
// that there is no such cluster while the catalogue lists it, but what he has lost;
// the catalogue names no role that is revoked.
func TestRevokedRoleIsSaid(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	r.load("objects.yaml", strings.Replace(objects, "groups: [employees]", "groups: [employees, all-admins]", 1))
	l := r.laptop().login("carol")
	client := l.stream()
	roles := func(name wire.ClusterName) []wire.Role {
		t.Helper()
		var list wire.ClusterList
		if refusal := l.ask(client, http.MethodGet, wire.PathClusters, nil, &list); refusal != nil {
			t.Fatal(refusal)
		}
		for _, c := range list.Clusters {
			if c.Name == name {
				return c.Roles
			}
		}
		t.Fatalf("%s is not in the catalogue", name)
		return nil
	}
	lost := func(name wire.ClusterName, text string) {
		t.Helper()
		_, refusal := l.mint(client, name)
		mustRefuse(t, "a token", refusal, wire.ReasonRoleRevoked)
		if refusal != nil && !strings.HasPrefix(refusal.Message, text) {
			t.Errorf("%q, want %q", refusal.Message, text)
		}
	}
	if got := roles("secret"); !slices.Equal(got, []wire.Role{"admins", "devs"}) {
		t.Fatalf("from the start: %v", got)
	}
	r.revoke(v1alpha1.RevocationSpec{Role: "admins"})
	eventually(t, "the role is revoked", func() bool { return slices.Equal(roles("secret"), []wire.Role{"devs"}) })
	lost("secret", "role admins was revoked")
	r.revoke(v1alpha1.RevocationSpec{Role: "devs", Reason: "review"})
	eventually(t, "all are", func() bool { return len(roles("secret")) == 0 })
	lost("secret", "role admins was revoked, and you hold no other")
	lost("prod", "role admins was revoked, and you hold no other")
	_, refusal := l.mint(client, "nowhere")
	mustRefuse(t, "a token for what is not there", refusal, wire.ReasonClusterUnknown)
}

// TestV207NothingIsIssued: a revoked person gets 403 wherever something is issued:
// a token, a renewal in the tunnel and on gw., by ID token and by userinfo, and a
// new session.
func TestV207NothingIsIssued(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l, other := r.laptop().login("alice"), r.laptop().login("carol")
	carol := other.stream()
	refreshed := func() string {
		return l.token("alice", map[string]any{"nonce": nil, "iat": r.clock.Now().Unix(), "exp": r.clock.Now().Add(time.Hour).Unix()})
	}
	r.revoke(v1alpha1.RevocationSpec{User: "alice@example.com"})
	eventually(t, "alice is revoked", func() bool { return r.registry.Check(r.Facts(l.identity())) != nil })

	refused := func(what string, refusal *wire.Refusal) {
		t.Helper()
		mustRefuse(t, what, refusal, wire.ReasonRevoked)
		if refusal != nil && refusal.Status() != http.StatusForbidden {
			t.Errorf("%s: %d", what, refusal.Status())
		}
	}
	_, refusal := l.mint(l.stream(), "prod")
	refused("a token", refusal)
	renew := func(in wire.RenewRequest) *wire.Refusal {
		in.CSR = csr(t, l.key)
		return l.ask(l.stream(), http.MethodPost, wire.PathCertificate, in, nil)
	}
	refused("a renewal by ID token", renew(wire.RenewRequest{IDToken: refreshed()}))
	refused("a renewal by userinfo", renew(wire.RenewRequest{AccessToken: r.accessToken("alice")}))
	txn := l.check(wire.PurposeLogin)
	refused("a new session", l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}))
	newcomer := r.laptop()
	txn = newcomer.check(wire.PurposeLogin)
	refused("a new session on another device", newcomer.session(wire.SessionRequest{TXN: txn, IDToken: newcomer.token("alice", nil)}))
	if _, refusal := other.mint(carol, "secret"); refusal != nil {
		t.Errorf("somebody else: %v", refusal)
	}

	r.clock.advance(2 * time.Hour)
	in := wire.RenewRequest{TXN: l.check(wire.PurposeRenew), CSR: csr(t, l.key), Certificate: l.cert.Chain}
	in.IDToken = refreshed()
	refused("a renewal of what has expired", r.post(wire.PathSessionRenew, in, nil))
}
