package policy

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

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
