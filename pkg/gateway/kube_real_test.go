package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/env"
)

// account makes a service account with a cluster role of its own and returns
// its token.
func account(t *testing.T, cp *env.ControlPlane, name string, rules []rbacv1.PolicyRule) string {
	t.Helper()
	token, err := cp.ServiceAccountToken(t.Context(), impersonate.Namespace, name, time.Hour)
	must(t, err)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: impersonate.Namespace, Name: name}},
	}
	if _, err := cp.Client().RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if _, err := cp.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return token
}

// needs of the manifests that a rig will have.
func needsOf(t *testing.T, profile v1alpha1.ImpersonationProfile, manifests string) impersonate.Needs {
	t.Helper()
	r := &rig{t: t}
	object := &v1alpha1.TargetCluster{}
	object.Name = "prod"
	object.Spec = v1alpha1.TargetClusterSpec{URL: "https://x", TokenFile: "x", Impersonation: profile}
	object.Default()
	r.apply(object, manifests)
	s := r.snapshot.Load()
	return impersonate.NeedsOf(object, slices.Collect(maps.Keys(s.Roles)), slices.Collect(maps.Values(s.Policies)))
}

// realRig is a rig in front of the real API server, with the account and rights
// that `zt-gateway rbac` prints.
func realRig(t *testing.T, profile v1alpha1.ImpersonationProfile, manifests string) (*rig, *env.ControlPlane) {
	t.Helper()
	cp := env.Shared(t)
	name := "zt-impersonate-" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	token := account(t, cp, name, needsOf(t, profile, manifests).Rules())
	return newRig(t, rigOptions{url: cp.URL, ca: cp.CAPEM, token: token, profile: profile, manifests: manifests}), cp
}

// grant gives a role of zt's a cluster role in the cluster.
func grant(t *testing.T, cp *env.ControlPlane, role, clusterRole string) {
	t.Helper()
	_, err := cp.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "zt-test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterRole},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, Name: impersonate.GroupPrefix + role}},
	}, metav1.CreateOptions{})
	must(t, err)
}

// whoami asks the API server who it thinks is asking.
func (p *person) whoami() (authenticationv1.UserInfo, reply) {
	p.rig.t.Helper()
	request := p.request(http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`))
	request.Header.Set("Content-Type", "application/json")
	answer := p.rig.do(p.http("h2"), request)
	var review authenticationv1.SelfSubjectReview
	_ = json.Unmarshal([]byte(answer.body), &review)
	return review.Status.UserInfo, answer
}

// TestProfiles: in both profiles the API server sees the person, and the
// account is proven to be able to do that and no more.
func TestProfiles(t *testing.T) {
	t.Parallel()
	for _, profile := range []v1alpha1.ImpersonationProfile{v1alpha1.ImpersonationConstrained, v1alpha1.ImpersonationLegacy} {
		t.Run(string(profile), func(t *testing.T) {
			t.Parallel()
			r, _ := realRig(t, profile, everything)
			alice := r.person("alice@example.com")
			got, answer := alice.whoami()
			want := authenticationv1.UserInfo{
				Username: "zt:alice@example.com",
				Groups:   []string{"zt:all", "system:authenticated"},
				Extra: map[string]authenticationv1.ExtraValue{
					wire.ExtraDevice: {string(alice.device.ID)}, wire.ExtraSession: {string(alice.session)}, wire.ExtraClientIP: {"203.0.113.7"},
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d %s: %s", answer.code, answer.body, diff)
			}
			if c := r.kube.Conditions(); len(c) != 0 {
				t.Errorf("conditions: %v", c)
			}
			// RBAC in the cluster judges the person, not the account.
			pods := alice.get("/api/v1/pods")
			if pods.code != http.StatusForbidden || !strings.Contains(pods.body, `User \"zt:alice@example.com\" cannot list`) {
				t.Errorf("%d %s", pods.code, pods.body)
			}
		})
	}
}

// TestConstrainedIsNarrow: the account of the constrained profile can do in a
// person's name only what policies allow, also for somebody who has its token.
func TestConstrainedIsNarrow(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	manifests := strings.Replace(strings.ReplaceAll(readers, "all", "narrow"), "pods, secrets, services", "pods, services", 1)
	token := account(t, cp, "zt-impersonate-narrow", needsOf(t, v1alpha1.ImpersonationConstrained, manifests).Rules())
	grant(t, cp, "narrow", "cluster-admin")
	ask := func(method, path string, header http.Header) int {
		request, err := http.NewRequestWithContext(t.Context(), method, cp.URL+path, nil)
		must(t, err)
		request.Header = header
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := insecure(cp).RoundTrip(request)
		must(t, err)
		defer response.Body.Close()
		return response.StatusCode
	}
	as := func(user string, groups ...string) http.Header {
		return http.Header{"Impersonate-User": {user}, "Impersonate-Group": groups}
	}
	// The API server learns of new rights a moment after they were written.
	(&rig{t: t}).eventually("the rights hold", func() bool {
		return ask("GET", "/api/v1/namespaces/default/pods", as("zt:alice@example.com", "zt:narrow")) == http.StatusOK
	})
	for _, test := range []struct {
		name, method, path string
		header             http.Header
		want               int
	}{
		{"pods", "GET", "/api/v1/namespaces/default/pods", as("zt:alice@example.com", "zt:narrow"), 200},
		{"secrets", "GET", "/api/v1/namespaces/default/secrets", as("zt:alice@example.com", "zt:narrow"), 403},
		{"secrets of the cluster", "GET", "/api/v1/secrets", as("zt:alice@example.com", "zt:narrow"), 403},
		{"a secret", "GET", "/api/v1/namespaces/default/secrets/x", as("zt:alice@example.com", "zt:narrow"), 403},
		{"a node", "GET", "/api/v1/nodes", as("zt:alice@example.com", "zt:narrow"), 403},
		{"delete a pod", "DELETE", "/api/v1/namespaces/default/pods/x", as("zt:alice@example.com", "zt:narrow"), 403},
		{"another group", "GET", "/api/v1/namespaces/default/pods", as("zt:alice@example.com", "zt:other"), 403},
		{"masters", "GET", "/api/v1/namespaces/default/pods", as("zt:alice@example.com", "system:masters"), 403},
		{"a service account", "GET", "/api/v1/namespaces/default/pods", as("system:serviceaccount:kube-system:default"), 403},
		{"a node's user", "GET", "/api/v1/namespaces/default/pods", as("system:node:x"), 403},
	} {
		if got := ask(test.method, test.path, test.header); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// TestTooWide: an account that could impersonate without constraint is not used.
func TestTooWide(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	for name, extra := range map[string]rbacv1.PolicyRule{
		"legacy-verb": {Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users"}},
		"star":        {Verbs: []string{"*"}, APIGroups: []string{"apps"}, Resources: []string{"deployments"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := append(needsOf(t, v1alpha1.ImpersonationConstrained, everything).Rules(), extra)
			token := account(t, cp, "zt-impersonate-wide-"+name, rules)
			r := newRig(t, rigOptions{url: cp.URL, ca: cp.CAPEM, token: token, noWait: true})
			r.eventually("the proof", func() bool {
				return slices.ContainsFunc(r.kube.Conditions(), func(c Condition) bool { return c.Type == ConditionTooWide })
			})
			alice := r.person("alice@example.com")
			if got := alice.get("/api/v1/pods"); got.code != http.StatusForbidden || !strings.Contains(got.body, "zt-gateway rbac") {
				t.Errorf("%d %s", got.code, got.body)
			}
			if r.kube.Reachable() {
				t.Error("reachable")
			}
		})
	}
}

// TestMissingRight: what a policy allows and RBAC does not let the account do is
// said before anybody runs into it, and told apart when somebody does.
func TestMissingRight(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	token := account(t, cp, "zt-impersonate-stale", needsOf(t, v1alpha1.ImpersonationConstrained, readers).Rules())
	r := newRig(t, rigOptions{url: cp.URL, ca: cp.CAPEM, token: token})
	stale := func(c Condition) bool {
		return c.Type == ConditionRBACStale && strings.Contains(c.Detail, "impersonate-on:user-info:")
	}
	if !slices.ContainsFunc(r.kube.Conditions(), stale) {
		t.Errorf("conditions: %v", r.kube.Conditions())
	}
	alice := r.person("alice@example.com")
	got := alice.get("/api/v1/nodes")
	if record := r.outcome(got.decision); got.code != http.StatusForbidden || record.Reason != wire.ReasonRBACStale {
		t.Errorf("%d %s: %s", got.code, got.body, record.Reason)
	}
}

// TestV101: an extra reaches the API server as it was meant, letter by letter.
// Through an AuthenticationConfiguration only lower-case keys can come.
func TestV101(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	token := account(t, cp, "zt-extra", []rbacv1.PolicyRule{
		{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users"}},
		{Verbs: []string{"impersonate"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"*"}},
	})
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte(token), 0o600))
	transport := &impersonate.Transport{Base: insecure(cp), Token: impersonate.NewTokenFile(file, time.Now)}
	want := map[string][]string{
		"example.com/plain":          {"a", "b"},
		"Example.COM/Capitals":       {"x"},
		"a%2fb":                      {"percent"},
		"a/b/c":                      {"slashes"},
		"ключ/ключ":                  {"non-ASCII"},
		"with space, (comma); ~quot": {`"quoted" value, with comma`},
		"value":                      {"знач=ение/%25"},
	}
	ctx := impersonate.WithIdentity(t.Context(), &impersonate.Identity{User: "zt:alice@example.com", UID: "uid-1", Extra: want, AuditID: "v101"})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, cp.URL+"/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	var review authenticationv1.SelfSubjectReview
	must(t, json.Unmarshal(body, &review))
	got := map[string][]string{}
	for key, values := range review.Status.UserInfo.Extra {
		got[key] = values
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", body, diff)
	}
	if review.Status.UserInfo.UID != "uid-1" {
		t.Errorf("uid %q", review.Status.UserInfo.UID)
	}
}

// TestV103: without the headers the account may do nothing at all.
func TestV103(t *testing.T) {
	t.Parallel()
	r, _ := realRig(t, v1alpha1.ImpersonationConstrained, everything)
	for _, test := range []struct{ method, path, body string }{
		{"GET", "/api/v1/pods", ""},
		{"GET", "/api/v1/namespaces/kube-system/secrets", ""},
		{"GET", "/api/v1/nodes", ""},
		{"GET", "/api/v1/pods?watch=1", ""},
		{"GET", "/api/v1/namespaces/default/pods/x/log", ""},
		{"POST", "/api/v1/namespaces", `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"x"}}`},
		{"PUT", "/api/v1/namespaces/default", `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"default"}}`},
		{"PATCH", "/api/v1/namespaces/default", `{}`},
		{"DELETE", "/api/v1/namespaces/default", ""},
		{"DELETE", "/api/v1/namespaces/default/pods", ""},
		{"POST", "/api/v1/namespaces/default/pods/x/exec?command=id", ""},
		{"POST", "/api/v1/namespaces/zt-system/serviceaccounts/zt-impersonate/token", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1"}`},
		{"GET", "/metrics", ""},
		{"GET", "/logs/", ""},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, r.kube.upstream.Base().String()+test.path, strings.NewReader(test.body))
		must(t, err)
		request.Header.Set("Content-Type", "application/json")
		if test.method == "PATCH" {
			request.Header.Set("Content-Type", "application/merge-patch+json")
		}
		response, err := r.kube.upstream.Own().RoundTrip(request)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s: %d", test.method, test.path, response.StatusCode)
		}
	}
}

// TestV107: questions about oneself are answered for the person.
func TestV107(t *testing.T) {
	t.Parallel()
	r, cp := realRig(t, v1alpha1.ImpersonationConstrained, strings.ReplaceAll(everything, "all", "self"))
	grant(t, cp, "self", "view")
	alice := r.person("alice@example.com", "self")
	stdout, stderr, err := alice.kubectl(cp, "auth", "whoami", "-o", "json")
	var review authenticationv1.SelfSubjectReview
	if err != nil || json.Unmarshal([]byte(stdout), &review) != nil || review.Status.UserInfo.Username != "zt:alice@example.com" || !slices.Contains(review.Status.UserInfo.Groups, "zt:self") {
		t.Errorf("whoami: %v\n%s\n%s", err, stdout, stderr)
	}
	stdout, stderr, err = alice.kubectl(cp, "auth", "can-i", "--list")
	if err != nil || !strings.Contains(stdout, "configmaps") || strings.Contains(stdout, "impersonate") || strings.Contains(stdout, "secrets") {
		t.Errorf("can-i --list: %v\n%s\n%s", err, stdout, stderr)
	}
	if stdout, _, err = alice.kubectl(cp, "auth", "can-i", "delete", "pods"); err == nil || strings.TrimSpace(stdout) != "no" {
		t.Errorf("can-i: %v %q", err, stdout)
	}
	// A refusal of zt's is read by stock kubectl, with what to do next.
	r.manifests(strings.ReplaceAll(readers, "all", "self"))
	_, stderr, err = alice.kubectl(cp, "delete", "pod", "x")
	if err == nil || !strings.Contains(stderr, "zt:") || !strings.Contains(stderr, "decision") {
		t.Errorf("refused: %v\n%s", err, stderr)
	}
}

// TestV116: a cluster-scoped custom object is not served under a namespace.
func TestV116(t *testing.T) {
	t.Parallel()
	r, cp := realRig(t, v1alpha1.ImpersonationConstrained, strings.ReplaceAll(everything, "all", "scoped"))
	grant(t, cp, "scoped", "cluster-admin")
	must(t, cp.Apply(t.Context(), `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.v116.example.com}
spec:
  group: v116.example.com
  scope: Cluster
  names: {plural: things, singular: thing, kind: Thing, listKind: ThingList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`))
	r.eventually("the custom object", func() bool {
		return cp.Apply(t.Context(), "apiVersion: v116.example.com/v1\nkind: Thing\nmetadata: {name: one}\n") == nil
	})
	alice := r.person("alice@example.com", "scoped")
	r.eventually("it is served", func() bool { return alice.get("/apis/v116.example.com/v1/things/one").code == http.StatusOK })
	for _, path := range []string{"/apis/v116.example.com/v1/namespaces/default/things/one", "/apis/v116.example.com/v1/namespaces/default/things"} {
		if got := alice.get(path); got.code != http.StatusForbidden && got.code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
	}
}

// insecure reaches the API server without a look at its certificate.
func insecure(cp *env.ControlPlane) http.RoundTripper {
	return testTransport(cp.CAPEM)
}

// kubectl runs stock kubectl through a tunnel of the person's, for as long as
// his token lives.
func (p *person) kubectl(cp *env.ControlPlane, args ...string) (stdout, stderr string, err error) {
	p.rig.t.Helper()
	return p.kubectlWith(cp, env.Command{}, args...)
}

func (p *person) kubectlWith(cp *env.ControlPlane, command env.Command, args ...string) (stdout, stderr string, err error) {
	p.rig.t.Helper()
	command.Kubeconfig = p.kubeconfig()
	command.Home = p.rig.t.TempDir()
	return cp.Run(p.rig.t.Context(), command, args...)
}

// kubeconfig is one for a local proxy that opens tunnels.
func (p *person) kubeconfig() string {
	p.rig.t.Helper()
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "prod",
		"clusters": []any{map[string]any{"name": "prod", "cluster": map[string]any{
			"server": "https://" + p.rig.kube.host, "certificate-authority-data": p.rig.cluster.CAPEM, "proxy-url": "http://" + p.proxy(),
		}}},
		"users":    []any{map[string]any{"name": "me", "user": map[string]any{"token": p.token()}}},
		"contexts": []any{map[string]any{"name": "prod", "context": map[string]any{"cluster": "prod", "user": "me"}}},
	}
	data, err := json.Marshal(config)
	must(p.rig.t, err)
	path := filepath.Join(p.rig.t.TempDir(), "kubeconfig")
	must(p.rig.t, os.WriteFile(path, data, 0o600))
	return path
}

// proxy is the least of what an agent does: it accepts CONNECT, reads the
// ClientHello, puts the preface in front and copies.
func (p *person) proxy() string {
	p.rig.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(p.rig.t, err)
	p.rig.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if err := p.tunnel(conn); err != nil && p.rig.t.Context().Err() == nil {
					fmt.Fprintln(io.Discard, err)
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func (p *person) tunnel(conn net.Conn) error {
	head := make([]byte, 0, 1024)
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); {
		if _, err := conn.Read(one); err != nil {
			return err
		}
		head = append(head, one[0])
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return err
	}
	hello, err := evidence.ReadHello(conn)
	if err != nil {
		return err
	}
	jws, err := evidence.SignProof(p.proof, evidence.ProofRequest{Audience: string(p.rig.cluster.UID), Hello: hello.Message, Now: time.Now(), Chain: p.chain})
	if err != nil {
		return err
	}
	far, err := net.Dial("tcp", p.rig.listener.Addr().String())
	if err != nil {
		return err
	}
	defer far.Close()
	if err := evidence.WritePreface(far, jws); err != nil {
		return err
	}
	if _, err := far.Write(hello.Raw); err != nil {
		return err
	}
	ctx, done := context.WithCancel(context.Background())
	go func() {
		defer done()
		_, _ = io.Copy(far, conn)
		_ = far.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(conn, far)
	_ = conn.(*net.TCPConn).CloseWrite()
	<-ctx.Done()
	return err
}
