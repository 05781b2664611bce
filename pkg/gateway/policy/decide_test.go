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

func TestDecideAllow(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod"), target("other"), target("prod-1"), target("xprod-1"), target("off", func(c *v1alpha1.TargetCluster) {
			c.Spec.Access = v1alpha1.AccessDisabled
		})},
		roles: []*v1alpha1.AccessRole{accessRole("dev"), accessRole("ops"), accessRole("ci"), accessRole("kubelet"), accessRole("url"), accessRole("glob"), accessRole("other")},
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
			accessPolicy("subnodes", v1alpha1.EffectAllow, "kubelet", "prod", on("*", "nodes/* nodes/prox* */proxy")),
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
		{ask("get nodes/proxy /n1", "kubelet"), false}, // a pattern is no name
		{ask("proxy nodes /n1", "kubelet"), false},
		{ask("get nodes/status /n1", "kubelet"), true},
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
		// Groups mix what has namespaces with what has none.
		{ask("list podcertificaterequests.certificates.k8s.io"), "freeze"},
		{ask("list certificatesigningrequests.certificates.k8s.io"), ""},
		{ask("watch workloads.scheduling.k8s.io"), "freeze"},
		{ask("list priorityclasses.scheduling.k8s.io"), ""},
		{ask("list csistoragecapacities.storage.k8s.io"), "freeze"},
		{ask("list storageclasses.storage.k8s.io"), ""},
		{ask("list roles.rbac.authorization.k8s.io"), "freeze"},
		{ask("list nodes.metrics.k8s.io"), "freeze"}, // a name that Kubernetes uses in another group
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
		{ask("delete pods a/web"), `no policy lets role dev delete pods "web" in namespace "a" on cluster "prod"; policy read allows get and list of it (kubectl zt clusters shows your roles)`},
		{ask("get deployments.apps a/web"), `no policy lets role dev get deployments.apps "web" in namespace "a" on cluster "prod"; policy read allows it for pods and pods/log (kubectl zt clusters shows your roles)`},
		{ask("update configmaps x/y"), `no policy lets role dev update configmaps "y" in namespace "x" on cluster "prod"; policy read allows it in namespace team-a and team-b only (kubectl zt clusters shows your roles)`},
		{ask("get secrets x/y", "dev", "ops"), `no policy lets roles dev and ops get secrets "y" in namespace "x" on cluster "prod"; policy read allows it for pods and pods/log (kubectl zt clusters shows your roles)`},
		{ask("list services"), `policy freeze denies list services in all namespaces on cluster "prod", since it denies this in namespace payments and all namespaces include it (name another namespace with -n)`},
		{ask("list endpoints a"), `policy freeze denies list endpoints in namespace "a" on cluster "prod", since it denies this for db and the request does not say for which object it is (ask for one object by its name)`},
		{ask("get pods zt-system/a"), `you may not get pods "a" in namespace "zt-system" on cluster "prod": namespace zt-system is zt's own (only role zt-admin may; kubectl zt clusters shows your roles)`},
		{ask("get /metrics"), `no policy lets role dev get /metrics on cluster "prod" (kubectl zt clusters shows your roles)`},
		{ask("get pods a/b", "ops"), `cluster "prod" does not exist, or none of your roles may use it (kubectl zt clusters lists yours)`},
		{bare, `no policy covers cluster "bare", so nobody may get pods "b" in namespace "a" on cluster "bare" (kubectl zt clusters shows your roles)`},
	}
	for _, tt := range tests {
		if got := c.Decide(tt.ask).Refusal(); got == nil || got.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", got, tt.want)
		}
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

// A role that was revoked gives nothing any more and still denies what it denied.
func TestRevokedRoleStillDenies(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod")},
		roles:    []*v1alpha1.AccessRole{accessRole("dev"), accessRole("contractor"), accessRole("zt-admin")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("all", v1alpha1.EffectAllow, "dev", "*", on("get", "pods secrets configmaps")),
			accessPolicy("more", v1alpha1.EffectAllow, "contractor", "*", on("get", "services")),
			accessPolicy("anybody", v1alpha1.EffectAllow, "*", "*", on("get", "events")),
			accessPolicy("no secrets", v1alpha1.EffectDeny, "contractor", "*", on("get", "secrets")),
			permissive(accessPolicy("soon", v1alpha1.EffectDeny, "contractor", "*", on("get", "configmaps")), now.Add(time.Hour)),
		},
	}.compile(t)
	dev, none := []wire.Role{"dev"}, []wire.Role{}
	tests := []struct {
		what        string
		roles       []wire.Role
		deny        []wire.Role
		allow, soft bool
	}{
		{"get secrets a/b", dev, nil, true, false},
		{"get secrets a/b", dev, []wire.Role{"contractor"}, false, false},
		{"get secrets a/b", dev, []wire.Role{"dev", "contractor"}, false, false},
		{"get pods a/b", dev, []wire.Role{"contractor"}, true, false},
		{"get services a/b", dev, []wire.Role{"contractor"}, false, false},
		{"get configmaps a/b", dev, []wire.Role{"contractor"}, true, true},
		{"get events a/b", dev, []wire.Role{"contractor"}, true, false},
		{"get events a/b", none, []wire.Role{"dev", "contractor"}, false, false},
		{"get devices.kube-zt.io a/b", dev, []wire.Role{AdminRole}, false, false}, // nobody's admin by it
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %v %v", tt.what, tt.roles, tt.deny), func(t *testing.T) {
			t.Parallel()
			q := ask(tt.what)
			q.Roles, q.DenyRoles = tt.roles, tt.deny
			if d := c.Decide(q); d.Allowed != tt.allow || d.WouldDeny != tt.soft {
				t.Errorf("%+v", d)
			}
		})
	}
}
