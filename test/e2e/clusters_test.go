package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	clientauthentication "k8s.io/client-go/pkg/apis/clientauthentication/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// Several clusters behind one listener (F42, F46, F71, B18): each is a name, a
// context and an audience of its own; a policy may choose them by label; hidden
// is not closed; and what is taken away from one leaves the others alone.
func TestSeveralClusters(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{Manifests: map[string]string{"stages.yaml": `apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: events-on-stages}
spec:
  roles: [any-employee-personal-device]
  clusterSelector: {matchLabels: {env: stage}}
  rules: [{verbs: [list], apiGroups: [""], resources: [events]}]
`}}, idp.Options{})
	for name, spec := range map[string]string{"blue": "", "green": "hidden: true"} {
		if err := s.WriteCluster(name, "stage", spec); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice := connected(t, s, "alice")
	listed := alice.ZT(t.Context(), "clusters", "-o", "name").Stdout
	if !strings.Contains(listed, "blue") || strings.Contains(listed, "green") {
		t.Errorf("listed:\n%s\nwant blue, and green hidden", listed)
	}
	for _, name := range []string{"blue", "green"} {
		if res := alice.ZT(t.Context(), "connect", name); res.Code != 0 {
			t.Fatalf("connect %s: %v", name, res)
		}
	}
	get := func(cluster, resource string) stack.Result {
		return alice.Kubectl(t.Context(), "--context", cluster, "get", resource)
	}
	for _, name := range []string{stack.Cluster, "blue", "green"} {
		if res := get(name, "pods"); res.Code != 0 {
			t.Errorf("%s: %v", name, res)
		}
	}
	if alice.BrowserOpens() != 1 {
		t.Errorf("%d logins for three clusters", alice.BrowserOpens())
	}
	// The selector reaches the stages only. RBAC, behind it, speaks for itself.
	if res := get(stack.Cluster, "events"); !strings.Contains(res.Stderr, "zt:") {
		t.Errorf("events of prod, which no policy allows: %v", res)
	}
	if res := get("blue", "events"); !strings.Contains(res.Stderr, `cannot list resource "events"`) {
		t.Errorf("events of blue did not reach RBAC: %v", res)
	}

	// A token of one cluster is worth nothing at the other, by the same laptop.
	res := alice.Kubectl(t.Context(), "--context", "green", "--token", tokenOf(t, alice, "blue"), "get", "pods")
	if res.Code == 0 {
		t.Errorf("blue's token opened green: %v", res)
	}

	if err := s.WriteManifest("revocation.yaml", "apiVersion: kube-zt.io/v1alpha1\nkind: Revocation\nmetadata: {name: blue}\nspec: {cluster: blue, reason: it is being moved}\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := get("blue", "pods"); res.Code == 0 || !strings.Contains(res.Stderr, "it is being moved") {
		t.Errorf("a revoked cluster: %v", res)
	}
	for _, name := range []string{stack.Cluster, "green"} {
		if res := get(name, "pods"); res.Code != 0 {
			t.Errorf("%s after another one was revoked: %v", name, res)
		}
	}
	if alice.BrowserOpens() != 1 {
		t.Error("a revoked cluster ended the session")
	}
}

// tokenOf is what the exec plugin gives kubectl for a context.
func tokenOf(t *testing.T, l *stack.Laptop, context string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(l.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	plugin := config.AuthInfos[config.Contexts[context].AuthInfo].Exec
	res := l.Run(t.Context(), plugin.Command, plugin.Args...)
	var credential clientauthentication.ExecCredential
	if err := json.Unmarshal([]byte(res.Stdout), &credential); err != nil || credential.Status == nil {
		t.Fatalf("credential: %v: exit %d: %s", err, res.Code, res.Stderr)
	}
	return credential.Status.Token
}
