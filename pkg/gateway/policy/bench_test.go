package policy

import (
	"fmt"
	"testing"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// large is 100 policies of 5 rules each over 50 roles; only the last policy
// allows what the benchmark asks.
func large(t testing.TB) (*Compiled, []wire.Role) {
	w := world{clusters: []*v1alpha1.TargetCluster{target("prod")}}
	var held []wire.Role
	var all string
	for i := range 50 {
		name := fmt.Sprintf("role-%02d", i)
		w.roles = append(w.roles, accessRole(name))
		held = append(held, wire.Role(name))
		all += name + " "
	}
	for i := range 100 {
		effect := v1alpha1.EffectAllow
		if i%5 == 0 {
			effect = v1alpha1.EffectDeny
		}
		rules := []v1alpha1.PolicyRule{
			in(on("get list", "secrets configmaps"), "team-a team-b"),
			in(on("get list", "pods"), "a-* b-* c-*"),
			on("create update patch", "pods services"),
			on("get list watch", "nodes namespaces"),
			{Verbs: []string{"get"}, APIGroups: []string{"apps", "batch"}, Resources: []string{"*"}},
		}
		if i == 99 {
			rules = append(rules, on("get", "pods"))
		}
		w.policies = append(w.policies, accessPolicy(fmt.Sprintf("policy-%02d", i), effect, all, "*", rules...))
	}
	return w.compile(t), held
}

func BenchmarkDecide(b *testing.B) {
	c, held := large(b)
	for _, bb := range []struct {
		name  string
		roles []wire.Role
		what  string
	}{
		{"allow by the last of 100 policies, 3 roles held", held[:3], "get pods team-a/web"},
		{"allow by the last of 100 policies, 50 roles held", held, "get pods team-a/web"},
		{"discovery", held[:3], "get /apis/apps/v1"},
		{"refused with its text", held[:3], "delete pods team-a/web"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			q := ask(bb.what, bb.roles...)
			b.ReportAllocs()
			for b.Loop() {
				c.Decide(q)
			}
		})
	}
}

func BenchmarkRoles(b *testing.B) {
	c, _ := large(b)
	s := Subject{User: wire.User{Name: "alice"}, Groups: []string{"a", "b", "role-07"}, Device: wire.Device{Tier: "software"}}
	b.ReportAllocs()
	for b.Loop() {
		c.Roles(s)
	}
}

// The common path must leave nothing for the garbage collector.
func TestDecideDoesNotAllocate(t *testing.T) {
	c, held := large(t)
	for _, what := range []string{"get pods team-a/web", "get /apis/apps/v1", "create selfsubjectaccessreviews.authorization.k8s.io"} {
		q := ask(what, held...)
		if d := c.Decide(q); !d.Allowed {
			t.Fatalf("%s: %+v", what, d)
		}
		if n := testing.AllocsPerRun(100, func() { c.Decide(q) }); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}
