package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

var now = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// world is a configuration written short.
type world struct {
	clusters []*v1alpha1.TargetCluster
	roles    []*v1alpha1.AccessRole
	policies []*v1alpha1.AccessPolicy
}

func (w world) compile(t testing.TB) *Compiled {
	t.Helper()
	for _, c := range w.clusters {
		c.Default()
	}
	for _, r := range w.roles {
		r.Default()
	}
	for _, p := range w.policies {
		p.Default()
	}
	c, errs := Compile("v1", w.clusters, w.roles, w.policies)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return c
}

func target(name string, edit ...func(*v1alpha1.TargetCluster)) *v1alpha1.TargetCluster {
	c := &v1alpha1.TargetCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TargetClusterSpec{InCluster: true}}
	for _, e := range edit {
		e(c)
	}
	return c
}

func accessRole(name string, edit ...func(*v1alpha1.AccessRoleSpec)) *v1alpha1.AccessRole {
	r := &v1alpha1.AccessRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AccessRoleSpec{Groups: []string{name}}}
	for _, e := range edit {
		e(&r.Spec)
	}
	return r
}

func accessPolicy(name string, effect v1alpha1.PolicyEffect, roles, clusters string, rules ...v1alpha1.PolicyRule) *v1alpha1.AccessPolicy {
	return &v1alpha1.AccessPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.AccessPolicySpec{
			Effect: effect, Roles: strings.Fields(roles), Clusters: strings.Fields(clusters), Rules: rules,
		},
	}
}

func permissive(p *v1alpha1.AccessPolicy, until time.Time) *v1alpha1.AccessPolicy {
	p.Spec.Enforcement = v1alpha1.Enforcement{Mode: v1alpha1.EnforcementPermissive, Until: &metav1.Time{Time: until}}
	return p
}

// on makes a rule of the core group: verbs and resources, blank-separated.
func on(verbs, resources string) v1alpha1.PolicyRule {
	return v1alpha1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: []string{""}, Resources: strings.Fields(resources)}
}

func in(r v1alpha1.PolicyRule, namespaces string) v1alpha1.PolicyRule {
	r.Namespaces = strings.Fields(namespaces)
	return r
}

func named(r v1alpha1.PolicyRule, names string) v1alpha1.PolicyRule {
	r.ResourceNames = strings.Fields(names)
	return r
}

var everything = v1alpha1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*", "*/*"}}

// ask writes an Input short: "list pods", "get pods/exec team-a/web",
// "get deployments.apps team-a/web", "get /logs".
func ask(what string, roles ...wire.Role) Input {
	if len(roles) == 0 {
		roles = []wire.Role{"dev"}
	}
	i := Input{Now: now, Roles: roles, Cluster: "prod"}
	words := strings.Fields(what)
	i.Verb = words[0]
	if strings.HasPrefix(words[1], "/") {
		i.Path = words[1]
		return i
	}
	i.ResourceRequest = true
	resource, sub, _ := strings.Cut(words[1], "/")
	i.Resource, i.APIGroup, _ = strings.Cut(resource, ".")
	i.Subresource = sub
	if len(words) > 2 {
		i.Namespace, i.Name, _ = strings.Cut(words[2], "/")
	}
	return i
}

func TestDecideAllow(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("other"), target("prod-1"), target("xprod-1"), target("off", func(c *v1alpha1.TargetCluster) {
			c.Spec.Access = v1alpha1.AccessDisabled
		})},
		roles: []*v1alpha1.AccessRole{accessRole("dev"), accessRole("ops"), accessRole("ci"), accessRole("url"), accessRole("glob"), accessRole("other")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("dev", v1alpha1.EffectAllow, "dev", "prod off",
				on("get list watch", "pods pods/log services"),
				in(on("*", "configmaps"), "team-* dev"),
				named(on("get update create list", "secrets"), "app-*"),
				in(on("create", "pods/exec"), "dev"),
				in(on("get list", "endpoints"), "*"),
			),
			accessPolicy("ops", v1alpha1.EffectAllow, "ops", "prod", everything),
			accessPolicy("nodes", v1alpha1.EffectAllow, "ci", "prod", on("create proxy", "nodes/proxy"), on("*", "*")),
			accessPolicy("url", v1alpha1.EffectAllow, "url", "prod", v1alpha1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/logs/*", "/metrics"}}),
			accessPolicy("glob", v1alpha1.EffectAllow, "glob", "prod-*", on("get", "pods")),
			accessPolicy("whoever", v1alpha1.EffectAllow, "*", "prod", on("get", "events")),
		},
	}.compile(t)

	tests := []struct {
		ask   Input
		allow bool
	}{
		{ask("list pods"), true},
		{ask("list pods team-a"), true},
		{ask("get pods team-a/web"), true},
		{ask("get pods/log team-a/web"), true},
		{ask("delete pods team-a/web"), false},
		{ask("get pods/exec team-a/web"), false},
		{ask("get pods/status team-a/web"), false},
		{ask("list pods.metrics.k8s.io team-a"), false}, // another group
		{ask("list Pods team-a"), false},

		{ask("get configmaps team-a/x"), true},
		{ask("get configmaps dev/x"), true},
		{ask("get configmaps team/x"), false},
		{ask("get configmaps xteam-a/x"), false},
		{ask("get configmaps developers/x"), false},
		{ask("list configmaps"), false}, // all namespaces are more than some
		{ask("deletecollection configmaps team-a"), true},

		{ask("get events a/b", "other"), true},
		{ask("get events a/b", "deleted"), false}, // whoever holds any role
		{ask("list endpoints any"), true},
		{ask("list endpoints"), false}, // "*" is any namespace, not all at once

		{ask("get secrets team-a/app-1"), true},
		{ask("get secrets team-a/app"), false},
		{ask("get secrets team-a/xapp-1"), false},
		{ask("list secrets team-a"), false},
		{ask("list secrets team-a/app-1"), true}, // fieldSelector metadata.name
		{ask("create secrets team-a"), false},    // the name stands in the body only

		// A shell is a shell whatever the method.
		{ask("create pods/exec dev/web"), true},
		{ask("get pods/exec dev/web"), true},
		{ask("create pods/exec prod/web"), false},
		{ask("create pods/attach dev/web"), false},
		{ask("create pods/portforward dev/web", "ops"), true},
		{ask("get services/proxy dev/web", "ops"), true},

		// The kubelet must be listed by name.
		{ask("get nodes/proxy /n1", "ops"), false},
		{ask("create nodes/proxy /n1", "ops"), false},
		{ask("proxy nodes /n1", "ops"), false},
		{ask("get nodes/proxy /n1", "ci"), true},
		{ask("proxy nodes /n1", "ci"), true},
		{ask("get nodes /n1", "ops"), true},
		{ask("get pods/log a/b", "ci"), false}, // "*" is no sub-resource

		// Old form of proxying: judged as proxy.
		{ask("proxy pods dev/web", "dev"), false},
		{ask("proxy pods dev/web", "ops"), true},

		{ask("get /logs/", "url"), true},
		{ask("head /logs/a/b", "url"), true},
		{ask("get /logs", "url"), false},
		{ask("get /metrics", "url"), true},
		{ask("get /metrics/cadvisor", "url"), false},
		{ask("post /metrics", "url"), false},
		{ask("get /metrics", "ops"), false}, // a rule for resources is none for URLs
		{ask("use pods a/b", "dev"), false},
		{ask("use pods a/b", "ops"), true}, // only "*" covers an unknown verb

		{Input{Now: now, Cluster: "prod-1", Roles: []wire.Role{"glob"}, Verb: "get", Resource: "pods", ResourceRequest: true}, true},
		{Input{Now: now, Cluster: "xprod-1", Roles: []wire.Role{"glob"}, Verb: "get", Resource: "pods", ResourceRequest: true}, false},
		{Input{Now: now, Cluster: "prod", Roles: []wire.Role{"glob"}, Verb: "get", Resource: "pods", ResourceRequest: true}, false},
		{Input{Now: now, Cluster: "other", Roles: []wire.Role{"dev"}, Verb: "list", Resource: "pods", ResourceRequest: true}, false},
		{Input{Now: now, Cluster: "off", Roles: []wire.Role{"dev"}, Verb: "list", Resource: "pods", ResourceRequest: true}, false},
		{Input{Now: now, Cluster: "nowhere", Roles: []wire.Role{"dev"}, Verb: "list", Resource: "pods", ResourceRequest: true}, false},
		{Input{Now: now, Cluster: "prod", Verb: "list", Resource: "pods", ResourceRequest: true}, false},
		{Input{Now: now, Cluster: "prod", Roles: []wire.Role{"deleted"}, Verb: "list", Resource: "pods", ResourceRequest: true}, false},
	}
	for _, tt := range tests {
		name := fmt.Sprintf("%s/%s %s%s.%s/%s %s/%s", tt.ask.Cluster, tt.ask.Verb, tt.ask.Path, tt.ask.Resource, tt.ask.APIGroup, tt.ask.Subresource, tt.ask.Namespace, tt.ask.Name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := c.Decide(tt.ask)
			if d.Allowed != tt.allow || d.WouldDeny || d.Version != "v1" {
				t.Errorf("%+v: %+v", tt.ask, d)
			}
			if (d.Refusal() == nil) != tt.allow || (d.Message == "") != tt.allow {
				t.Errorf("refusal and decision differ: %+v", d)
			}
		})
	}
}

func TestDecideDeny(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod")},
		roles:    []*v1alpha1.AccessRole{accessRole("ops"), accessRole("dev")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("all", v1alpha1.EffectAllow, "ops dev", "*", everything),
			accessPolicy("freeze", v1alpha1.EffectDeny, "dev", "prod", in(v1alpha1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, "frozen")),
			accessPolicy("name", v1alpha1.EffectDeny, "*", "prod", named(on("get list watch create delete", "configmaps"), "crown")),
			accessPolicy("nobody", v1alpha1.EffectDeny, "*", "prod", on("*", "pods/exec")),
		},
	}.compile(t)
	tests := []struct {
		ask  Input
		want string // the policy that denies, "" for allowed
	}{
		{ask("get pods frozen/a"), "freeze"},
		{ask("get pods frozen/a", "ops"), ""},
		{ask("get pods/log frozen/a"), ""}, // "*" covers no sub-resource, in a Deny too
		{ask("get pods thawed/a"), ""},
		{ask("list pods"), "freeze"}, // all namespaces show the frozen one
		{ask("watch deployments.apps"), "freeze"},
		{ask("list nodes"), ""}, // has no namespace
		{ask("list namespaces"), ""},
		{ask("get namespaces frozen/frozen"), "freeze"},
		{ask("list widgets.example.com"), "freeze"}, // may have namespaces, so it is refused
		{ask("get widgets.example.com /a"), ""},     // has none
		{ask("get configmaps a/crown", "ops"), "name"},
		{ask("get configmaps a/crown2", "ops"), ""},
		{ask("list configmaps a", "ops"), "name"},
		{ask("list configmaps a/other", "ops"), ""},
		{ask("create configmaps a", "ops"), "name"},
		{ask("update configmaps a/other", "ops"), ""},
		{ask("get pods/exec a/b", "ops"), "nobody"},
	}
	for _, tt := range tests {
		d := c.Decide(tt.ask)
		if d.Allowed != (tt.want == "") || !d.Allowed && (d.Policy != tt.want || d.Reason != wire.ReasonPolicyDenied) {
			t.Errorf("%s %s/%s %s/%s: %+v, want denied by %q", tt.ask.Verb, tt.ask.Resource, tt.ask.Subresource, tt.ask.Namespace, tt.ask.Name, d, tt.want)
		}
	}
}

// The order in which objects are read must not matter.
func TestDecideKnowsNoOrder(t *testing.T) {
	t.Parallel()
	w := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("b")},
		roles:    []*v1alpha1.AccessRole{accessRole("dev"), accessRole("ops"), accessRole("x")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("a", v1alpha1.EffectAllow, "dev", "*", on("*", "* */*")),
			accessPolicy("b", v1alpha1.EffectAllow, "*", "prod", on("get", "pods")),
			accessPolicy("c", v1alpha1.EffectDeny, "ops", "prod", on("delete", "pods"), on("list", "secrets")),
			accessPolicy("d", v1alpha1.EffectDeny, "*", "b prod", in(on("get", "pods"), "secret")),
			accessPolicy("e", v1alpha1.EffectAllow, "ops", "prod", everything),
		},
	}
	var asks []Input
	for _, what := range []string{"get pods a/b", "get pods secret/b", "delete pods a/b", "list secrets a", "list pods", "get deployments.apps a/b"} {
		asks = append(asks, ask(what, "dev"), ask(what, "ops"), ask(what, "dev", "ops"), ask(what, "x"))
	}
	want := make([]bool, len(asks))
	first := w.compile(t)
	for i, a := range asks {
		want[i] = first.Decide(a).Allowed
	}
	if !slices.Contains(want, true) || !slices.Contains(want, false) {
		t.Fatal("the questions do not differ")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		rng.Shuffle(len(w.policies), func(i, j int) { w.policies[i], w.policies[j] = w.policies[j], w.policies[i] })
		rng.Shuffle(len(w.roles), func(i, j int) { w.roles[i], w.roles[j] = w.roles[j], w.roles[i] })
		for _, p := range w.policies {
			rng.Shuffle(len(p.Spec.Rules), func(i, j int) { p.Spec.Rules[i], p.Spec.Rules[j] = p.Spec.Rules[j], p.Spec.Rules[i] })
		}
		c := w.compile(t)
		for i, a := range asks {
			rng.Shuffle(len(a.Roles), func(i, j int) { a.Roles[i], a.Roles[j] = a.Roles[j], a.Roles[i] })
			if got := c.Decide(a).Allowed; got != want[i] {
				t.Fatalf("%+v: %v, in another order %v", a, got, want[i])
			}
		}
	}
}

func TestBuiltinDenies(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod", func(c *v1alpha1.TargetCluster) {
			c.Spec.Enforcement = v1alpha1.Enforcement{Mode: v1alpha1.EnforcementPermissive, Until: &metav1.Time{Time: now.Add(time.Hour)}}
		})},
		roles: []*v1alpha1.AccessRole{accessRole("root"), accessRole("zt-admin")},
		policies: []*v1alpha1.AccessPolicy{
			permissive(accessPolicy("root", v1alpha1.EffectAllow, "root", "*", everything), now.Add(time.Hour)),
			accessPolicy("admin", v1alpha1.EffectAllow, "zt-admin", "*", everything),
		},
	}.compile(t)
	tests := []struct {
		what  string
		root  bool
		admin bool
	}{
		{"get pods zt-system/gateway", false, true},
		{"list secrets zt-system", false, true},
		{"get pods/exec zt-system/gateway", false, true},
		{"delete namespaces zt-system/zt-system", false, true},
		{"get namespaces /zt-system", false, true},
		{"get pods zt-system2/x", true, true},
		{"list accesspolicies.kube-zt.io", false, true},
		{"update devices.kube-zt.io /a", false, true},
		{"get widgets.xkube-zt.io /a", true, true},
		{"list customresourcedefinitions.apiextensions.k8s.io", true, true},
		{"get customresourcedefinitions.apiextensions.k8s.io /devices.kube-zt.io", true, true},
		{"patch customresourcedefinitions.apiextensions.k8s.io /devices.kube-zt.io", false, true},
		{"patch customresourcedefinitions.apiextensions.k8s.io /widgets.example.com", true, true},
		{"deletecollection customresourcedefinitions.apiextensions.k8s.io", false, true},
		{"delete apiservices.apiregistration.k8s.io /v1alpha1.kube-zt.io", false, true},
		{"create serviceaccounts/token other/zt-impersonate", false, true},
		{"create serviceaccounts/token other/builder", true, true},
		{"impersonate serviceaccounts x/zt-impersonate", false, true},
		{"impersonate users /system:serviceaccount:zt-system:zt-store", false, false},
		{"impersonate groups /system:masters", false, false},
		{"impersonate:user-info groups /system:masters", false, false},
		{"impersonate groups /zt:zt-admin", false, true},
		{"impersonate groups /dev", true, true},
		{"delete clusterroles.rbac.authorization.k8s.io /zt-impersonate", false, true},
		{"update rolebindings.rbac.authorization.k8s.io x/zt-store", false, true},
		{"get clusterroles.rbac.authorization.k8s.io /zt-impersonate", true, true},
		{"deletecollection clusterrolebindings.rbac.authorization.k8s.io", false, true},
		{"update clusterroles.rbac.authorization.k8s.io /edit", true, true},
		{"list secrets", false, true},
		{"watch secrets", false, true},
		{"list secrets /zt-key", false, true}, // fieldSelector across namespaces
		{"list secrets team-a", true, true},
		{"list pods", true, true},
	}
	for _, tt := range tests {
		for role, want := range map[wire.Role]bool{"root": tt.root, "zt-admin": tt.admin} {
			d := c.Decide(ask(tt.what, role))
			if d.Allowed != want {
				t.Errorf("%s as %s: %+v, want %v", tt.what, role, d, want)
			}
			if !d.Allowed && (d.Reason != wire.ReasonBuiltinDenied || d.Policy != BuiltinPolicy || d.WouldDeny) {
				t.Errorf("%s as %s: %+v", tt.what, role, d)
			}
		}
	}
}

func TestBuiltinAllows(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("hidden")},
		roles:    []*v1alpha1.AccessRole{accessRole("dev"), accessRole("closed"), accessRole("elsewhere")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("dev", v1alpha1.EffectAllow, "dev closed", "prod", on("get", "pods")),
			accessPolicy("closed", v1alpha1.EffectDeny, "closed", "prod", v1alpha1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/openapi*"}}),
			accessPolicy("elsewhere", v1alpha1.EffectAllow, "elsewhere", "hidden", on("get", "pods")),
		},
	}.compile(t)
	allowed := []string{
		"get /api", "get /api/", "get /api/v1", "get /apis", "get /apis/apps", "get /apis/apps/v1", "get /version", "get /version/",
		"get /openapi/v2", "get /openapi/v3/apis/apps/v1", "head /api",
		"create selfsubjectreviews.authentication.k8s.io", "create selfsubjectaccessreviews.authorization.k8s.io",
		"create selfsubjectrulesreviews.authorization.k8s.io",
	}
	refused := []string{
		"get /", "get /logs", "get /debug/pprof", "get /metrics", "get /.well-known/openid-configuration", "get /healthz", "get /livez", "get /readyz",
		"get /APIs/apps/v1", "get /Api/v1", "get /apiz", "get /apis/a/b/c", "get /api/v1/x", "get /api/../metrics", "get /api//metrics",
		"post /api", "get /versions", "get /openapis", "get /version/x",
		"create subjectaccessreviews.authorization.k8s.io", "create localsubjectaccessreviews.authorization.k8s.io x", "create tokenreviews.authentication.k8s.io",
		"get selfsubjectreviews.authentication.k8s.io", "create selfsubjectreviews.example.com",
	}
	for _, what := range allowed {
		if d := c.Decide(ask(what)); !d.Allowed || d.Policy != BuiltinPolicy {
			t.Errorf("%s: %+v", what, d)
		}
		if d := c.Decide(ask(what, "elsewhere")); d.Allowed || d.Reason != wire.ReasonClusterUnknown {
			t.Errorf("%s with a role for another cluster: %+v", what, d)
		}
		if d := c.Decide(ask(what, "gone")); d.Allowed {
			t.Errorf("%s without a role: %+v", what, d)
		}
	}
	for _, what := range refused {
		if d := c.Decide(ask(what)); d.Allowed {
			t.Errorf("%s: %+v", what, d)
		}
	}
	if d := c.Decide(ask("get /openapi/v2", "closed")); d.Allowed || d.Policy != "closed" {
		t.Errorf("a Deny wins over what is built in: %+v", d)
	}
}

func TestPermissive(t *testing.T) {
	t.Parallel()
	until := now.Add(time.Hour)
	soften := func(c *v1alpha1.TargetCluster) {
		c.Spec.Enforcement = v1alpha1.Enforcement{Mode: v1alpha1.EnforcementPermissive, Until: &metav1.Time{Time: until}}
	}
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("soft", soften), target("softoff", soften, func(c *v1alpha1.TargetCluster) {
			c.Spec.Access = v1alpha1.AccessDisabled
		})},
		roles: []*v1alpha1.AccessRole{accessRole("dev"), accessRole("ops"), accessRole("lone")},
		policies: []*v1alpha1.AccessPolicy{
			permissive(accessPolicy("try", v1alpha1.EffectAllow, "dev", "prod", on("get", "pods")), until),
			accessPolicy("ops", v1alpha1.EffectAllow, "ops", "prod soft softoff", on("get list", "pods")),
			permissive(accessPolicy("trydeny", v1alpha1.EffectDeny, "*", "prod", on("list", "pods"), on("get", "secrets")), until),
			accessPolicy("harddeny", v1alpha1.EffectDeny, "*", "prod soft", on("delete", "pods")),
		},
	}.compile(t)
	type want struct {
		Allowed, WouldDeny bool
		Policy             string
		Reason             wire.Reason
	}
	at := func(i Input, cluster wire.ClusterName, now time.Time) Input {
		i.Cluster, i.Now = cluster, now
		return i
	}
	tests := []struct {
		name string
		ask  Input
		want want
	}{
		{"allowed anyway", ask("get pods a/b"), want{true, false, "try", ""}},
		{"default softened by the policy", ask("get services a/b"), want{true, true, "try", wire.ReasonPolicyDefault}},
		{"only for its roles", ask("get services a/b", "ops"), want{false, false, "", wire.ReasonPolicyDefault}},
		{"softened Deny of something allowed", ask("list pods a", "ops"), want{true, true, "trydeny", wire.ReasonPolicyDenied}},
		{"softened Deny of something softened", ask("get secrets a/b"), want{true, true, "trydeny", wire.ReasonPolicyDenied}},
		{"softened Deny of something not allowed", ask("get secrets a/b", "ops"), want{false, false, "", wire.ReasonPolicyDefault}},
		{"hard Deny", ask("delete pods a/b"), want{false, false, "harddeny", wire.ReasonPolicyDenied}},
		{"hard Deny on a soft cluster", at(ask("delete pods a/b"), "soft", now), want{false, false, "harddeny", wire.ReasonPolicyDenied}},
		{"soft cluster", at(ask("get secrets a/b"), "soft", now), want{true, true, "", wire.ReasonPolicyDefault}},
		{"soft cluster, any role", at(ask("get secrets a/b", "lone"), "soft", now), want{true, true, "", wire.ReasonPolicyDefault}},
		{"soft cluster, no role", at(ask("get secrets a/b", "gone"), "soft", now), want{false, false, "", wire.ReasonClusterUnknown}},
		{"soft cluster, discovery", at(ask("get /api", "lone"), "soft", now), want{true, false, BuiltinPolicy, ""}},
		{"soft cluster, built-in", at(ask("get secrets zt-system/b"), "soft", now), want{false, false, BuiltinPolicy, wire.ReasonBuiltinDenied}},
		{"soft cluster, kubelet", at(ask("get nodes/proxy /n"), "soft", now), want{false, false, BuiltinPolicy, wire.ReasonBuiltinDenied}},
		{"soft cluster, switched off", at(ask("get pods a/b", "ops"), "softoff", now), want{false, false, BuiltinPolicy, wire.ReasonClusterDisabled}},
		{"the last moment", at(ask("get services a/b"), "prod", until.Add(-time.Nanosecond)), want{true, true, "try", wire.ReasonPolicyDefault}},
		{"the end", at(ask("get services a/b"), "prod", until), want{false, false, "", wire.ReasonPolicyDefault}},
		{"the end of a Deny", at(ask("list pods a", "ops"), "prod", until), want{false, false, "trydeny", wire.ReasonPolicyDenied}},
		{"the end of a cluster", at(ask("get secrets a/b"), "soft", until), want{false, false, "", wire.ReasonClusterUnknown}},
		{"no clock", at(ask("get services a/b"), "prod", time.Time{}), want{false, false, "", wire.ReasonPolicyDefault}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := c.Decide(tt.ask)
			if diff := cmp.Diff(tt.want, want{d.Allowed, d.WouldDeny, d.Policy, d.Reason}); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", d, diff)
			}
			if d.WouldDeny && d.Message == "" {
				t.Error("a would-be denial without a reason to record")
			}
		})
	}
}

// Unknown and invisible clusters look alike, whatever else would be refused.
func TestInvisibleLooksUnknown(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("secret"), target("off", func(c *v1alpha1.TargetCluster) { c.Spec.Access = v1alpha1.AccessDisabled })},
		roles:    []*v1alpha1.AccessRole{accessRole("dev"), accessRole("ops"), accessRole("zt-admin")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("dev", v1alpha1.EffectAllow, "dev", "prod", on("get", "pods")),
			accessPolicy("ops", v1alpha1.EffectAllow, "ops", "*", on("get", "pods")),
			accessPolicy("deny", v1alpha1.EffectDeny, "*", "*", on("delete", "pods")),
		},
	}.compile(t)
	for _, what := range []string{"get pods a/b", "delete pods a/b", "get pods zt-system/a", "get /api", "get /metrics", "get nodes/proxy /a"} {
		unknown := ask(what)
		unknown.Cluster = "secret-not"
		want := c.Decide(unknown)
		for _, cluster := range []wire.ClusterName{"secret", "off"} {
			invisible := ask(what)
			invisible.Cluster = cluster
			got := c.Decide(invisible)
			got.Message = strings.ReplaceAll(got.Message, string(cluster), "secret-not")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s on %s (-unknown +invisible):\n%s", what, cluster, diff)
			}
			if c.Visible(cluster, unknown.Roles, now) {
				t.Errorf("%s is visible", cluster)
			}
			if !c.Visible(cluster, []wire.Role{"ops"}, now) || !c.Visible(cluster, []wire.Role{"zt-admin"}, now) {
				t.Errorf("%s is not visible to those who may", cluster)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	laptop := wire.Device{ID: "d", Tier: "software", Ownership: "personal", Platform: "linux"}
	with := func(edit func(*wire.Device)) wire.Device { d := laptop; edit(&d); return d }
	alice := Subject{User: wire.User{Issuer: "i", Subject: "s", Name: "alice"}, Groups: []string{"employees"}, Device: laptop}
	device := func(s v1alpha1.DeviceSelector) func(*v1alpha1.AccessRoleSpec) {
		return func(r *v1alpha1.AccessRoleSpec) { r.Groups, r.Device = []string{"employees"}, s }
	}
	c := world{roles: []*v1alpha1.AccessRole{
		accessRole("nobody", func(r *v1alpha1.AccessRoleSpec) { r.Groups = nil }),
		accessRole("everybody", func(r *v1alpha1.AccessRoleSpec) { r.Groups, r.Users = nil, []string{"*"} }),
		accessRole("alice", func(r *v1alpha1.AccessRoleSpec) { r.Groups, r.Users = nil, []string{"alice"} }),
		accessRole("employees"),
		accessRole("either", func(r *v1alpha1.AccessRoleSpec) {
			r.Groups, r.Users = []string{"employees"}, []string{"carol"}
		}),
		accessRole("bare", device(v1alpha1.DeviceSelector{Tiers: []v1alpha1.DeviceTier{v1alpha1.TierNone}})),
		accessRole("hard", device(v1alpha1.DeviceSelector{Tiers: []v1alpha1.DeviceTier{v1alpha1.TierHardware, v1alpha1.TierHardwareAttested}})),
		accessRole("corporate", device(v1alpha1.DeviceSelector{Ownership: []v1alpha1.DeviceOwnership{v1alpha1.OwnershipCorporate}})),
		accessRole("mac", device(v1alpha1.DeviceSelector{Platforms: []string{"darwin"}})),
		accessRole("approved", device(v1alpha1.DeviceSelector{Approved: true})),
	}}.compile(t)
	tests := []struct {
		name string
		in   Subject
		want string
	}{
		{"alice", alice, "alice either employees everybody"},
		{"carol by name", Subject{User: wire.User{Name: "carol"}, Device: laptop}, "either everybody"},
		{"a stranger", Subject{User: wire.User{Name: "eve"}, Groups: []string{"Employees", "employees "}, Device: laptop}, "everybody"},
		{"nobody", Subject{Groups: []string{"employees"}, Device: laptop}, ""},
		{"the name of a group is no user", Subject{User: wire.User{Name: "employees"}, Device: laptop}, "everybody"},
		{"no device", Subject{User: alice.User, Groups: alice.Groups, Device: wire.Device{}}, "bare"},
		{"tier none", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) { d.Tier = "none" })}, "bare"},
		{"an unknown tier", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) { d.Tier = "tpm" })}, ""},
		{"hardware", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) { d.Tier = "hardware" })}, "alice either employees everybody hard"},
		{"a corporate, approved mac", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) {
			d.Ownership, d.Platform, d.Approved = "corporate", "darwin", true
		})}, "alice approved corporate either employees everybody mac"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, r := range c.Roles(tt.in) {
				got = append(got, string(r))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMessagesHelp(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("bare")},
		roles:    []*v1alpha1.AccessRole{accessRole("dev"), accessRole("ops"), accessRole("zt-admin")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("read", v1alpha1.EffectAllow, "dev", "prod", on("get list", "pods pods/log"), in(on("update", "configmaps"), "team-a team-b"), named(on("get", "secrets"), "app")),
			accessPolicy("freeze", v1alpha1.EffectDeny, "dev", "prod", in(on("*", "services"), "payments"), named(on("*", "endpoints"), "db")),
		},
	}.compile(t)
	bare := ask("get pods a/b", "zt-admin")
	bare.Cluster = "bare"
	tests := []struct {
		ask  Input
		want string
	}{
		{ask("delete pods a/web"), `no policy lets role dev delete pods "web" in namespace "a" on cluster "prod"; policy read allows get and list of it (kubectl zt status shows your roles)`},
		{ask("get deployments.apps a/web"), `no policy lets role dev get deployments.apps "web" in namespace "a" on cluster "prod"; policy read allows it for pods and pods/log (kubectl zt status shows your roles)`},
		{ask("update configmaps x/y"), `no policy lets role dev update configmaps "y" in namespace "x" on cluster "prod"; policy read allows it in namespace team-a and team-b only (kubectl zt status shows your roles)`},
		{ask("get secrets x/y", "dev", "ops"), `no policy lets roles dev and ops get secrets "y" in namespace "x" on cluster "prod"; policy read allows it for pods and pods/log (kubectl zt status shows your roles)`},
		{ask("list services"), `policy freeze denies list services in all namespaces on cluster "prod", since it denies this in namespace payments and all namespaces include it (name another namespace with -n)`},
		{ask("list endpoints a"), `policy freeze denies list endpoints in namespace "a" on cluster "prod", since it denies this for db and the request does not say for which object it is (ask for one object by its name)`},
		{ask("get pods zt-system/a"), `you may not get pods "a" in namespace "zt-system" on cluster "prod": namespace zt-system is zt's own (only role zt-admin may; kubectl zt status shows your roles)`},
		{ask("get /metrics"), `no policy lets role dev get /metrics on cluster "prod" (kubectl zt status shows your roles)`},
		{ask("get pods a/b", "ops"), `cluster "prod" does not exist, or none of your roles may use it (kubectl zt clusters lists yours)`},
		{bare, `no policy covers cluster "bare", so nobody may get pods "b" in namespace "a" on cluster "bare" (kubectl zt status shows your roles)`},
	}
	for _, tt := range tests {
		if got := c.Decide(tt.ask).Refusal(); got == nil || got.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", got, tt.want)
		}
	}
}

func TestCoverage(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("bare"), target("hard"), target("soft"), target("labelled", func(c *v1alpha1.TargetCluster) {
			c.Labels = map[string]string{"env": "dev"}
		})},
		roles: []*v1alpha1.AccessRole{accessRole("dev")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("a", v1alpha1.EffectAllow, "dev", "hard soft", on("get", "pods")),
			permissive(accessPolicy("b", v1alpha1.EffectAllow, "dev", "soft", on("get", "pods")), now.Add(time.Hour)),
			{
				ObjectMeta: metav1.ObjectMeta{Name: "c"},
				Spec: v1alpha1.AccessPolicySpec{
					Roles: []string{"dev"}, Rules: []v1alpha1.PolicyRule{on("get", "pods")},
					ClusterSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"env": "dev"}},
				},
			},
		},
	}.compile(t)
	for cluster, want := range map[wire.ClusterName]string{
		"bare": "no policy", "unknown": "no policy", "hard": "Enforcing", "labelled": "Enforcing",
		"soft": "Permissive until 2026-08-01T13:00:00Z",
	} {
		if got := c.Coverage(cluster, now); got != want {
			t.Errorf("%s: %q, want %q", cluster, got, want)
		}
	}
	if got := c.Coverage("soft", now.Add(time.Hour)); got != "Enforcing" {
		t.Errorf("after the end: %q", got)
	}
}

func TestCompileNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, errs := Compile("v1",
		[]*v1alpha1.TargetCluster{target("prod-eu")},
		[]*v1alpha1.AccessRole{accessRole("developers")},
		[]*v1alpha1.AccessPolicy{accessPolicy("p", v1alpha1.EffectAllow, "develoopers *", "prod-ue nothing-* *", on("get", "pods")), accessPolicy("q", v1alpha1.EffectAllow, "x", "*", on("get", "pods"))},
	)
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	want := []string{
		`AccessPolicy p: spec.roles[0]: there is no AccessRole "develoopers" (did you mean "developers"?)`,
		`AccessPolicy p: spec.clusters[0]: there is no TargetCluster "prod-ue" (did you mean "prod-eu"?)`,
		`AccessPolicy q: spec.roles[0]: there is no AccessRole "x"; there are developers`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// With nothing configured everybody is refused, and nothing fails.
func TestNothingConfigured(t *testing.T) {
	t.Parallel()
	c := world{}.compile(t)
	if d := c.Decide(ask("get pods a/b")); d.Allowed || d.Reason != wire.ReasonClusterUnknown {
		t.Errorf("%+v", d)
	}
	c = world{clusters: []*v1alpha1.TargetCluster{target("prod")}, roles: []*v1alpha1.AccessRole{accessRole("dev")}}.compile(t)
	for _, what := range []string{"get pods a/b", "get /api", "create selfsubjectreviews.authentication.k8s.io"} {
		if d := c.Decide(ask(what)); d.Allowed {
			t.Errorf("%s: %+v", what, d)
		}
	}
}

func TestPattern(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, text string
		want          bool
	}{
		{"prod-*", "prod-1", true},
		{"prod-*", "prod-", true},
		{"prod-*", "prod", false},
		{"prod-*", "xprod-1", false},
		{"*-1", "prod-1", true},
		{"*-1", "prod-11", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"*", "", true},
		{"*", "a/b", true},
		{"**", "x", true},
		{"", "", true},
		{"", "a", false},
		{"a", "A", false},
		{"*ab*ab*", "ab", false},
		{"*ab*ab*", "abab", true},
		{"a.b", "axb", false},
	}
	for _, tt := range tests {
		p := compilePattern(tt.pattern)
		if got := p.match(tt.text); got != tt.want {
			t.Errorf("%q on %q: %v", tt.pattern, tt.text, got)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("a*b*c", "aXbYc")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, glob, text string) {
		if len(glob) > 40 || len(text) > 40 {
			return
		}
		p := compilePattern(glob)
		if got, want := p.match(text), slow(glob, text); got != want {
			t.Errorf("%q on %q: %v, want %v", glob, text, got, want)
		}
	})
}

// slow is the definition of a glob, by dynamic programming.
func slow(glob, text string) bool {
	row := make([]bool, len(text)+1)
	row[0] = true
	for i := range len(glob) {
		next := make([]bool, len(text)+1)
		for j := range next {
			if glob[i] == '*' {
				next[j] = row[j] || j > 0 && next[j-1]
			} else {
				next[j] = j > 0 && row[j-1] && glob[i] == text[j-1]
			}
		}
		row = next
	}
	return row[len(text)]
}
