package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// contractors may do what everybody may, but read no secrets.
const contractors = everything + `
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: contractor}
spec: {groups: [contractors]}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: no-secrets}
spec:
  effect: Deny
  roles: [contractor]
  clusters: ["*"]
  rules: [{verbs: ["*"], apiGroups: [""], resources: [secrets]}]
`

// TestRevokedRoleKeepsItsDenies: who loses a role does not gain what it denied,
// be it taken while his token lives or before it was made; and the role is in
// nobody's name toward the cluster.
func TestRevokedRoleKeepsItsDenies(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: contractors})
	alice := r.person("alice@example.com", "all", "contractor")
	older := alice.token()
	get := func(path, token string) reply {
		t.Helper()
		request := alice.request(http.MethodGet, path, nil)
		request.Header.Set("Authorization", "Bearer "+token)
		return r.do(alice.http("h2"), request)
	}
	const secret, pod = "/api/v1/namespaces/dev/secrets/x", "/api/v1/namespaces/dev/pods/x"
	if got := get(secret, older); got.code != http.StatusForbidden {
		t.Fatalf("with the role: %d %s", got.code, got.body)
	}
	r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Role: "contractor"}}}, wire.Epoch{Generation: 1, Sequence: 99})
	newer := alice.token(func(c *wire.TokenClaims) { c.Roles, c.Revoked = []wire.Role{"all"}, []wire.Role{"contractor"} })
	for name, token := range map[string]string{"older token": older, "newer token": newer} {
		got := get(secret, token)
		if got.code != http.StatusForbidden {
			t.Fatalf("%s: %d %s", name, got.code, got.body)
		}
		if record := r.outcome(got.decision); record.Reason != wire.ReasonPolicyDenied || record.Policy != "no-secrets" {
			t.Errorf("%s: %s by %q", name, record.Reason, record.Policy)
		}
		r.upstream.none()
		if got := get(pod, token); got.code != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.code, got.body)
		}
		for _, group := range r.upstream.one().Header.Values("Impersonate-Group") {
			if group == "zt:contractor" {
				t.Errorf("%s: %s went to the cluster", name, group)
			}
		}
	}
}

// TestRevokedRoleKeepsNoStream: a stream that is judged again does not live by a
// role that was revoked before it began.
func TestRevokedRoleKeepsNoStream(t *testing.T) {
	t.Parallel()
	provider, further := furtherIssuer(t)
	manifests := corporate + `
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: staff}
spec: {groups: ["corp:employees"], device: {tiers: [none]}}
`
	r := newRig(t, rigOptions{direct: true, further: further, manifests: manifests})
	r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Role: "staff"}}}, wire.Epoch{Generation: 1, Sequence: 99})
	r.upstream.handle(watchUpstream(oneEvent))
	client := &http.Client{Transport: &http.Transport{DialTLSContext: r.directDialer("h2"), ForceAttemptHTTP2: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.kube.directHost+"/api/v1/pods?watch=1", nil)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+provider.MintIDToken("alice", idp.Mint{Claims: map[string]any{"aud": "kubernetes"}}))
	watch, err := client.Do(request)
	must(t, err)
	defer watch.Body.Close()
	if watch.StatusCode != http.StatusOK {
		t.Fatalf("%d", watch.StatusCode)
	}
	r.manifests(strings.Replace(manifests, "roles: [corp]", "roles: [staff]", 1))
	ended := time.AfterFunc(10*time.Second, func() { watch.Body.Close() })
	defer ended.Stop()
	if rest, err := io.ReadAll(watch.Body); err != nil || !strings.Contains(string(rest), `"type":"ERROR"`) {
		t.Errorf("%v %q", err, rest)
	}
}

// TestEndlessMethod: what is no method is neither answered nor recorded at the
// length that a client gave it.
func TestEndlessMethod(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	response, body, err := alice.raw(strings.Repeat("PURGE", 4<<10) + " /api HTTP/1.1\r\nHost: " + r.kube.host + "\r\nAuthorization: Bearer " + alice.token() + "\r\n\r\n")
	must(t, err)
	const clipped = "PURGEPURGEPURGEP…"
	if response.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(body, "method "+clipped+" is") || len(body) > 300 {
		t.Errorf("%d, %d bytes: %.300s", response.StatusCode, len(body), body)
	}
	r.upstream.none()
	if got := r.outcome(response.Header.Get(wire.HeaderDecision)); got.Method != clipped || len(got.Message) > 100 {
		t.Errorf("recorded: %.100s, %.300s", got.Method, got.Message)
	}
}

// TestLongNamesAreRecorded: a name of any length, in any characters, keeps no
// request out of the log, whether it was refused or not.
func TestLongNamesAreRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice, other := r.person("alice@example.com"), r.person("bob@example.com", "nothing")
	selector := "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3D" + strings.Repeat("%01", 18_000)
	for name, test := range map[string]struct {
		who    *person
		method string
		code   int
	}{
		"refused": {other, http.MethodGet, http.StatusForbidden},
		"read":    {alice, http.MethodGet, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.do(test.who.http("h2"), test.who.request(test.method, selector, nil))
			if got.code != test.code {
				t.Fatalf("%d %.300s", got.code, got.body)
			}
			var last audit.Record
			r.eventually("a record", func() bool {
				records := r.records()
				if len(records) > 0 {
					last = records[len(records)-1]
				}
				return last.Code == test.code
			})
			if last.Kind != audit.KindOutcome || last.Code != test.code || len(last.Name) < 100 || len(last.Name) > 1000 {
				t.Errorf("%s %d, a name of %d bytes", last.Kind, last.Code, len(last.Name))
			}
		})
	}
}

// TestKubeletFilesByQuery: a node's kubelet can be asked for a file by its query,
// too (Kubernetes' NodeLogQuery); those of zt's namespace are not to be had so.
func TestKubeletFilesByQuery(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for query, want := range map[string]int{
		"?query=pods/zt-system_gateway_0/gateway/0.log":          http.StatusForbidden,
		"?tailLines=1&query=%2Fpods%2Fzt%2Dsystem_gateway_0%2Fx": http.StatusForbidden,
		"?query=pods/dev_web_0/web/0.log":                        http.StatusOK,
		"":                                                       http.StatusOK,
	} {
		if got := alice.get("/api/v1/nodes/n1/proxy/logs/" + query); got.code != want {
			t.Errorf("%s: %d %.200s", query, got.code, got.body)
		}
	}
}
