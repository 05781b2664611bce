package impersonate

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

func allow(rules ...v1alpha1.PolicyRule) *v1alpha1.AccessPolicy {
	p := &v1alpha1.AccessPolicy{}
	p.Spec = v1alpha1.AccessPolicySpec{Effect: v1alpha1.EffectAllow, Roles: []string{"dev"}, Clusters: []string{"*"}, Rules: rules}
	return p
}

// lines shows rules as a person would write them.
func lines(rules []rbacv1.PolicyRule) []string {
	var out []string
	for _, r := range rules {
		verbs := strings.Join(r.Verbs, ",")
		if strings.HasPrefix(verbs, actionVerb) {
			verbs = "on:" + strings.ReplaceAll(verbs, actionVerb, "")
		}
		line := verbs + " " + strings.Join(r.APIGroups, ",") + "/" + strings.Join(r.Resources, ",") + strings.Join(r.NonResourceURLs, ",")
		if len(r.ResourceNames) > 0 {
			line += " " + strings.Join(r.ResourceNames, ",")
		}
		out = append(out, line)
	}
	return out
}

func TestRules(t *testing.T) {
	t.Parallel()
	constrained := []string{
		"impersonate:user-info authentication.k8s.io/users",
		"impersonate:user-info authentication.k8s.io/uids",
		"impersonate:user-info authentication.k8s.io/userextras/kube-zt.io/client-ip,userextras/kube-zt.io/device,userextras/kube-zt.io/session",
		"impersonate:user-info authentication.k8s.io/groups zt:admins,zt:dev",
		"on:get,head //api,/api/*,/apis,/apis/*,/openapi,/openapi/*,/version,/version/",
		"on:create authentication.k8s.io/selfsubjectreviews",
		"on:create authorization.k8s.io/selfsubjectaccessreviews,selfsubjectrulesreviews",
	}
	roles := []wire.Role{"dev", "admins", "dev"}
	for name, test := range map[string]struct {
		needs Needs
		want  []string // beside constrained, or all of it for legacy
	}{
		"nothing allowed": {needs: Needs{Roles: roles}},
		"legacy": {
			needs: Needs{Profile: v1alpha1.ImpersonationLegacy, Roles: roles, ExtraKeys: []string{"example.com/team"}, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}})}},
			want: []string{
				"impersonate /users", "impersonate authentication.k8s.io/uids",
				"impersonate authentication.k8s.io/userextras/example.com/team,userextras/kube-zt.io/client-ip,userextras/kube-zt.io/device,userextras/kube-zt.io/session",
				"impersonate /groups zt:admins,zt:dev",
			},
		},
		"exact": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}, Namespaces: []string{"dev"}})}},
			want:  []string{"on:get,list /pods,pods/log"},
		},
		"streams by any method": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"pods/exec", "services/proxy", "configmaps"}})}},
			want:  []string{"on:create /configmaps", "on:create,get /pods/exec", "on:create,delete,get,patch,update /services/proxy"},
		},
		"a stream without create": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods/exec"}})}},
		},
		"globs": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"de*"}, APIGroups: []string{"*.example.com"}, Resources: []string{"prod-*"}})}},
			want:  []string{"on:delete,deletecollection */*"},
		},
		"everything": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*/*"}})}},
			want: []string{
				"on:create,delete,deletecollection,get,list,patch,update,watch */*",
				"on:create,get */*/attach,*/exec,*/portforward",
				"on:create,delete,get,patch,update */*/proxy",
			},
		},
		"urls": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics", "/logs/*/x"}})}},
			want:  []string{"on:get,head //logs/*,/metrics"},
		},
		"urls by all verbs": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}})}},
			want:  []string{"on:delete,get,head,patch,post,put /*"},
		},
		"urls by a method": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"create", "post"}, NonResourceURLs: []string{"/hook"}})}},
			want:  []string{"on:post //hook"},
		},
		"verbs that no url has": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{allow(v1alpha1.PolicyRule{Verbs: []string{"create", "list"}, NonResourceURLs: []string{"/hook"}})}},
		},
		"denies need nothing": {
			needs: Needs{Roles: roles, Policies: []*v1alpha1.AccessPolicy{func() *v1alpha1.AccessPolicy {
				p := allow(v1alpha1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}})
				p.Spec.Effect = v1alpha1.EffectDeny
				return p
			}()}},
		},
		"permissive": {
			needs: Needs{Roles: roles, Permissive: true},
			want:  []string{"on:create,delete,deletecollection,get,list,patch,update,watch */*", "on:delete,get,head,patch,post,put /*"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := test.want
			if test.needs.Profile != v1alpha1.ImpersonationLegacy {
				want = append(slices.Clone(constrained), test.want...)
			}
			rules := test.needs.Rules()
			got := lines(rules)
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for _, rule := range rules {
				for _, verb := range rule.Verbs {
					if verb == "*" || verb == legacyVerb && test.needs.Profile != v1alpha1.ImpersonationLegacy {
						t.Errorf("verb %q in %v", verb, rule)
					}
				}
			}
			if missing := Missing(rules, rules); missing != "" {
				t.Errorf("what is there is missing: %s", missing)
			}
			if missing := Missing(rules, rules[1:]); missing == "" {
				t.Error("what is not there is not missing")
			}
		})
	}
}
