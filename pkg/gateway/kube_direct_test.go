package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// furtherIssuer is a provider whose tokens stock kubectl shows by itself.
func furtherIssuer(t *testing.T) (*idp.Provider, *authn.FurtherIssuers) {
	t.Helper()
	provider, err := idp.Start(context.WithoutCancel(t.Context()), idp.Options{})
	must(t, err)
	t.Cleanup(func() { provider.Close() })
	further, err := authn.NewFurtherIssuers(t.Context(), furtherConfig(provider.Issuer()), authn.FurtherOptions{
		LoginClientID: provider.ClientID(), ControlIssuer: rigIssuer, UsernamePrefix: "zt:", Transport: provider.Transport(),
	})
	must(t, err)
	return provider, further
}

func furtherConfig(issuer string) []byte {
	return fmt.Appendf(nil, `
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: %s, audiences: [kubernetes]}
  claimMappings:
    username: {claim: email, prefix: "corp:"}
    groups: {claim: groups, prefix: "corp:"}
    extra: [{key: example.com/team, valueExpression: "'blue'"}]
`, issuer)
}

const corporate = `
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: corp}
spec: {groups: ["corp:employees"], device: {tiers: [none]}}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: laptops}
spec: {users: ["*"]}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: corp}
spec:
  roles: [corp]
  clusters: [prod]
  rules: [{verbs: [list, watch], apiGroups: [""], resources: [pods]}]
`

// TestDirect: where the direct name is on, another issuer's token is a bearer of
// tier none, and where it is off there is no way in.
func TestDirect(t *testing.T) {
	t.Parallel()
	provider, further := furtherIssuer(t)
	r := newRig(t, rigOptions{direct: true, further: further, manifests: corporate})
	client := &http.Client{Transport: &http.Transport{DialTLSContext: r.directDialer("h2"), ForceAttemptHTTP2: true}}
	ask := func(t *testing.T, client *http.Client, host, token string) reply {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/api/v1/pods", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		return r.do(client, request)
	}
	good := func(user string) string {
		return provider.MintIDToken(user, idp.Mint{Claims: map[string]any{"aud": "kubernetes"}})
	}

	t.Run("passes", func(t *testing.T) {
		got := ask(t, client, r.kube.directHost, good("alice"))
		if got.code != http.StatusOK {
			t.Fatalf("%d %s", got.code, got.body)
		}
		alice, _ := provider.User("alice")
		want := map[string][]string{
			"Authorization":                            {"Bearer the-gateways-own-token"},
			"Impersonate-User":                         {"corp:" + alice.Email},
			"Impersonate-Group":                        {"zt:corp"}, // not laptops, which wants a device
			"Impersonate-Extra-Kube-Zt.io%2fclient-Ip": {"203.0.113.7"},
			"Impersonate-Extra-Example.com%2fteam":     {"blue"},
		}
		if diff := cmp.Diff(want, identityOf(r.upstream.one())); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("login's audience", func(t *testing.T) {
		got := ask(t, client, r.kube.directHost, provider.MintIDToken("alice", idp.Mint{}))
		if got.code != http.StatusUnauthorized || strings.Contains(got.body, provider.ClientID()) {
			t.Errorf("%d %s", got.code, got.body)
		}
		// The log says what was expected and what came (F76).
		record := r.outcome(got.decision)
		if record.Decision != audit.Refused || record.Reason != wire.ReasonTokenInvalid || !strings.Contains(record.Error, `"kubernetes"`) || !strings.Contains(record.Error, strconv.Quote(provider.ClientID())) {
			t.Errorf("recorded: %+v", record)
		}
	})
	t.Run("without the group", func(t *testing.T) {
		if got := ask(t, client, r.kube.directHost, good("bob")); got.code != http.StatusForbidden {
			t.Errorf("%d %s", got.code, got.body)
		}
	})
	t.Run("groups elsewhere", func(t *testing.T) {
		token := provider.MintIDToken("alice", idp.Mint{Claims: map[string]any{
			"aud": "kubernetes", "groups": nil, "_claim_names": map[string]string{"groups": "x"}, "_claim_sources": map[string]any{"x": map[string]string{"endpoint": "https://evil.test"}},
		}})
		if got := ask(t, client, r.kube.directHost, token); got.code != http.StatusForbidden || !strings.Contains(got.body, "place to ask for your groups") {
			t.Errorf("%d %s", got.code, got.body)
		}
	})
	t.Run("in a tunnel", func(t *testing.T) {
		alice, _ := provider.User("alice")
		same := r.person("alice@example.com")
		same.user = wire.User{Issuer: wire.Issuer(provider.Issuer()), Subject: wire.Subject(alice.Subject), Name: "alice@example.com"}
		same.renew(time.Hour)
		if got := ask(t, same.http("h2"), r.kube.host, good("alice")); got.code != http.StatusOK {
			t.Errorf("the same person: %d %s", got.code, got.body)
		}
		r.upstream.seen()
		got := ask(t, same.http("h2"), r.kube.host, good("bob"))
		if record := r.outcome(got.decision); got.code != http.StatusForbidden || record.Reason != wire.ReasonIdentityMismatch {
			t.Errorf("another person: %d %s %s", got.code, got.body, record.Reason)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		carol, _ := provider.User("carol")
		token := provider.MintIDToken("carol", idp.Mint{Claims: map[string]any{"aud": "kubernetes", "groups": []string{"employees"}, "iat": time.Now().Add(-time.Minute).Unix()}})
		if got := ask(t, client, r.kube.directHost, token); got.code != http.StatusOK {
			t.Fatalf("%d %s", got.code, got.body)
		}
		r.upstream.seen()
		r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{User: "corp:" + carol.Email, At: metav1.Now()}}}, wire.Epoch{Generation: 1, Sequence: 50})
		got := ask(t, client, r.kube.directHost, token)
		if record := r.outcome(got.decision); got.code != http.StatusForbidden || record.Reason != wire.ReasonRevoked {
			t.Errorf("%d %s %s", got.code, got.body, record.Reason)
		}
		r.upstream.none()
		if got := ask(t, client, r.kube.directHost, good("alice")); got.code != http.StatusOK {
			t.Errorf("somebody else: %d %s", got.code, got.body)
		}
		r.upstream.seen()
	})
	t.Run("a role changes", func(t *testing.T) {
		r.manifests(strings.Replace(corporate, "corp:employees", "corp:others", 1))
		if got := ask(t, client, r.kube.directHost, good("alice")); got.code != http.StatusForbidden {
			t.Errorf("%d %s", got.code, got.body)
		}
	})
	t.Run("off", func(t *testing.T) {
		off := *r.snapshot.Load().Clusters["prod"]
		off.Spec.Direct = false
		r.apply(&off, corporate)
		if conn, err := r.dialDirect(r.kube.directHost, "h2"); err == nil {
			conn.Close()
			t.Error("the handshake succeeded")
		}
	})
	r.upstream.none()
}
