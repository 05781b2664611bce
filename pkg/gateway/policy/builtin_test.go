package policy

import (
	"strings"
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
		{"watch events", true, true},
		{"list configmaps", false, true},
		{"watch configmaps", false, true},
		{"list configmaps team-a", true, true},
		{"get configmaps team-a/x", true, true},

		// What is added to a role of everybody's is zt's accounts', too.
		{"update clusterroles.rbac.authorization.k8s.io /system:discovery", false, true},
		{"patch clusterroles.rbac.authorization.k8s.io /system:basic-user", false, true},
		{"delete clusterroles.rbac.authorization.k8s.io /system:public-info-viewer", false, true},
		{"patch clusterroles.rbac.authorization.k8s.io /system:service-account-issuer-discovery", false, true},
		{"patch clusterroles.rbac.authorization.k8s.io /self-access-reviewer", false, true},
		{"get clusterroles.rbac.authorization.k8s.io /system:discovery", true, true},
		{"patch clusterroles.rbac.authorization.k8s.io /system:coredns", true, true}, // an add-on's
		{"patch clusterroles.rbac.authorization.k8s.io /view", true, true},
		{"patch roles.rbac.authorization.k8s.io dev/basic-user", true, true},

		{"patch apiservices.apiregistration.k8s.io /v1.", false, true},
		{"update apiservices.apiregistration.k8s.io /v1.authorization.k8s.io", false, true},
		{"update apiservices.apiregistration.k8s.io /v9.rbac.authorization.k8s.io", false, true},
		{"delete apiservices.apiregistration.k8s.io /v1.apps", false, true},
		{"get apiservices.apiregistration.k8s.io /v1.apps", true, true},
		{"update apiservices.apiregistration.k8s.io /v1beta1.metrics.k8s.io", true, true},
		{"delete apiservices.apiregistration.k8s.io /v1.snapshot.storage.k8s.io", true, true},

		{"create clusterrolebindings.authorization.openshift.io", false, true},
		{"update roles.authorization.openshift.io dev/x", false, true},
		{"get clusterroles.authorization.openshift.io /x", true, true},
		{"create subjectaccessreviews.authorization.openshift.io", true, true},
		{"create oauthaccesstokens.oauth.openshift.io", false, true},
		{"patch oauthauthorizetokens.oauth.openshift.io /x", false, true},
		{"delete oauthaccesstokens.oauth.openshift.io /x", true, true},
		{"list oauthaccesstokens.oauth.openshift.io", true, true},
		{"delete projects.project.openshift.io /zt-system", false, true},
		{"delete projects.project.openshift.io /dev", true, true},

		{"deletecollection pods", false, true},
		{"deletecollection pods team-a", true, true},
		{"deletecollection namespaces", false, true},
		{"update pods/ephemeralcontainers zt-system/gateway", false, true},
		{"create tokenreviews.authentication.k8s.io", true, true},
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

// TestKubeletIntoOwnNamespace: who may use a node's kubelet does not get the
// gateway on that node with it.
func TestKubeletIntoOwnNamespace(t *testing.T) {
	t.Parallel()
	c := world{
		clusters: []*v1alpha1.TargetCluster{target("prod")},
		roles:    []*v1alpha1.AccessRole{accessRole("root"), accessRole("zt-admin")},
		policies: []*v1alpha1.AccessPolicy{accessPolicy("root", v1alpha1.EffectAllow, "root zt-admin", "*", on("*", "nodes/proxy"))},
	}.compile(t)
	for path, want := range map[string]bool{
		"/api/v1/nodes/n1/proxy/exec/zt-system/gateway/gateway":                false,
		"/api/v1/nodes/n1:10250/proxy/containerLogs/zt-system/gateway/gateway": false,
		"/api/v1/nodes/n1/proxy/logs/pods/zt-system_gateway_0/gateway/0.log":   false,
		"/api/v1/nodes/n1/proxy/exec/dev/web/web":                              true,
		"/api/v1/nodes/n1/proxy/metrics":                                       true,
	} {
		for role, want := range map[wire.Role]bool{"root": want, "zt-admin": true} {
			in := ask("get nodes/proxy /n1", role)
			in.Path = path
			if d := c.Decide(in); d.Allowed != want {
				t.Errorf("%s as %s: %+v", path, role, d)
			}
		}
	}
}

// TestSecretsOfAllNamespaces: the refusal says what would pass.
func TestSecretsOfAllNamespaces(t *testing.T) {
	t.Parallel()
	c := bodyWorld(t)
	for _, what := range []string{"list secrets", "list configmaps", "deletecollection configmaps"} {
		if d := c.Decide(ask(what, "root")); d.Allowed || !strings.Contains(d.Hint, "-n") {
			t.Errorf("%s: %+v", what, d)
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
