package policy

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// bodyWorld lets root do everything, also where nothing allows it.
func bodyWorld(t *testing.T) *Compiled {
	return world{
		clusters: []*v1alpha1.TargetCluster{target("prod", func(c *v1alpha1.TargetCluster) {
			c.Spec.Enforcement = v1alpha1.Enforcement{Mode: v1alpha1.EnforcementPermissive, Until: &metav1.Time{Time: now.Add(time.Hour)}}
		})},
		roles: []*v1alpha1.AccessRole{accessRole("root"), accessRole("zt-admin")},
		policies: []*v1alpha1.AccessPolicy{
			accessPolicy("root", v1alpha1.EffectAllow, "root zt-admin", "*", everything),
		},
	}.compile(t)
}

const (
	crb      = "clusterrolebindings.rbac.authorization.k8s.io"
	rb       = "rolebindings.rbac.authorization.k8s.io"
	crds     = "customresourcedefinitions.apiextensions.k8s.io"
	services = "apiservices.apiregistration.k8s.io"
	csr      = "certificatesigningrequests"
)

// TestBuiltinDeniesByBody: what a request says in its body alone is denied as if
// it stood in the path.
func TestBuiltinDeniesByBody(t *testing.T) {
	t.Parallel()
	c := bodyWorld(t)
	bound := func(kind, namespace, name string) *Object {
		return &Object{Name: "mine", RoleRef: "view", Subjects: []BoundSubject{{"User", "", "zt:alice"}, {kind, namespace, name}}}
	}
	own := bound("ServiceAccount", "zt-system", "zt-impersonate")
	for _, tt := range []struct {
		what   string
		object *Object
		root   bool
	}{
		{"create " + services, &Object{Name: "v1alpha1.kube-zt.io"}, false},
		{"create " + services, &Object{Name: "v1.example.com"}, true},
		{"create " + crds, &Object{Name: "devices.kube-zt.io"}, false},
		{"create " + crds, &Object{Name: "devices.xkube-zt.io"}, true},
		{"create clusterroles.rbac.authorization.k8s.io", &Object{Name: "zt-impersonate"}, false},
		{"create clusterroles.rbac.authorization.k8s.io", &Object{GenerateName: "zt-"}, false},
		{"create clusterroles.rbac.authorization.k8s.io", &Object{Name: "ztx"}, true},
		{"create roles.rbac.authorization.k8s.io dev", &Object{Name: "zt-x"}, false},
		{"create roles.rbac.authorization.k8s.io dev", &Object{Name: "x"}, true},
		{"create roles.rbac.authorization.k8s.io zt-system", &Object{Name: "x"}, false},
		{"create " + crb, &Object{Name: "zt-x", RoleRef: "view"}, false},
		{"create " + crb, &Object{Name: "x", RoleRef: "zt-impersonate"}, false},
		{"create " + rb + " dev", &Object{Name: "x", RoleRef: "zt-store"}, false},
		{"create " + crb, &Object{Name: "x", RoleRef: "view"}, true},
		{"create " + crb, own, false},
		{"create " + rb + " dev", own, false},
		{"update " + crb + " /mine", own, false},
		{"patch " + crb + " /mine", own, false},
		{"patch " + rb + " dev/mine", own, false},
		{"patch " + crb + " /mine", &Object{}, true},
		{"patch " + crb + " /mine", &Object{RoleRef: "zt-impersonate"}, false},
		{"create " + crb, bound("User", "", "system:serviceaccount:zt-system:zt-impersonate"), false},
		{"create " + crb, bound("User", "", "system:serviceaccount:zt-systems:x"), true},
		{"create " + crb, bound("ServiceAccount", "dev", "builder"), true},
		{"create " + crb, bound("Group", "", "system:serviceaccounts:zt-system"), false},
		{"create " + rb + " dev", bound("Group", "", "system:serviceaccounts:zt-system"), false},
		{"create " + crb, bound("Group", "", "system:serviceaccounts:dev"), true},
		{"create " + crb, bound("Group", "", "system:serviceaccounts"), false},
		{"update " + crb + " /mine", bound("Group", "", "system:authenticated"), false},
		{"create " + rb + " kube-system", bound("Group", "", "system:authenticated"), false},
		{"create " + rb + " dev", bound("Group", "", "system:authenticated"), true},
		{"create " + crb, bound("Group", "", "system:unauthenticated"), true},
		{"patch " + csr + "/approval.certificates.k8s.io /mine", nil, false},
		{"update " + csr + "/approval.certificates.k8s.io /mine", nil, false},
		{"update " + csr + "/status.certificates.k8s.io /mine", nil, false},
		{"get " + csr + "/approval.certificates.k8s.io /mine", nil, true},
		{"create " + csr + ".certificates.k8s.io", nil, true},
		{"create " + csr + ".certificates.k8s.io", &Object{Name: "x", Signer: "kubernetes.io/kube-apiserver-client"}, true},
		{"create " + csr + ".certificates.k8s.io", &Object{Name: "x", Signer: "kubernetes.io/kube-apiserver-client-kubelet"}, false},
		{"create " + services, &Object{Name: "v1.authorization.k8s.io"}, false},
		{"create " + services, &Object{Name: "v1beta1.metrics.k8s.io"}, true},
		{"create clusterroles.rbac.authorization.k8s.io", &Object{Name: "system:discovery"}, false},
		{"create roles.rbac.authorization.k8s.io dev", &Object{Name: "system:discovery"}, true},
		{"create configmaps dev", &Object{Name: "zt-x"}, true},
	} {
		for role, want := range map[wire.Role]bool{"root": tt.root, "zt-admin": true} {
			what := tt.what
			in := askSub(what, role)
			in.Object = tt.object
			d := c.Decide(in)
			if d.Allowed != want {
				t.Errorf("%s %+v as %s: %+v, want %v", what, tt.object, role, d, want)
			}
			if !d.Allowed && (d.Reason != wire.ReasonBuiltinDenied || d.Policy != BuiltinPolicy || d.WouldDeny) {
				t.Errorf("%s as %s: %+v", what, role, d)
			}
		}
	}
}

// askSub is ask for RESOURCE/SUB.GROUP.
func askSub(what string, role wire.Role) Input {
	in := ask(what, role)
	if in.APIGroup == "" {
		in.Subresource, in.APIGroup, _ = strings.Cut(in.Subresource, ".")
	}
	return in
}

// TestWantsObject: the body is read where it counts, and for nobody else.
func TestWantsObject(t *testing.T) {
	t.Parallel()
	c := bodyWorld(t)
	for what, want := range map[string]bool{
		"create " + crb: true, "update " + crb + " /x": true, "patch " + crb + " /x": true,
		"create " + rb + " dev": true, "update " + rb + " dev/x": true, "patch " + rb + " dev/x": true,
		"create clusterroles.rbac.authorization.k8s.io": true, "create roles.rbac.authorization.k8s.io dev": true,
		"create " + crds: true, "create " + services: true, "create " + csr + ".certificates.k8s.io": true,
		"patch clusterroles.rbac.authorization.k8s.io /x": false, // named in the path
		"patch " + crds + " /x":                           false,
		"get " + crb + " /x":                              false,
		"delete " + crb + " /x":                           false,
		"list " + rb:                                      false,
		"create clusterrolebindings.example.com":          false,
		"create pods dev":                                 false,
		"create pods/exec dev/x":                          false,
	} {
		in := ask(what, "root")
		if got := c.WantsObject(&in); got != want {
			t.Errorf("%s: %t, want %t", what, got, want)
		}
		in = ask(what, "root", AdminRole)
		if c.WantsObject(&in) {
			t.Errorf("%s as %s: the body is wanted", what, AdminRole)
		}
	}
}
