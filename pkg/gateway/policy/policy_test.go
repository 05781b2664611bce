package policy

import (
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
