package impersonate

import (
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// TestTooWide: what goes beyond a profile makes the account unusable, whatever
// else it may.
func TestTooWide(t *testing.T) {
	t.Parallel()
	const group = "authentication.k8s.io"
	for name, test := range map[string]struct {
		rule   rbacv1.PolicyRule
		legacy bool // too wide for the legacy profile
		wide   bool // for the constrained one
	}{
		"a star":                         {rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{"apps"}, Resources: []string{"deployments"}}, true, true},
		"legacy, users":                  {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users"}}, false, true},
		"legacy, groups by name":         {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{"zt:dev"}}, false, true},
		"legacy, every group":            {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}}, true, true},
		"users":                          {rbacv1.PolicyRule{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{group}, Resources: []string{"users"}}, false, false},
		"groups by name":                 {rbacv1.PolicyRule{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{group}, Resources: []string{"groups"}, ResourceNames: []string{"zt:dev"}}, false, false},
		"every group":                    {rbacv1.PolicyRule{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{group}, Resources: []string{"groups"}}, true, true},
		"every group among others":       {rbacv1.PolicyRule{Verbs: []string{"get", "impersonate:user-info"}, APIGroups: []string{group}, Resources: []string{"users", "groups"}}, true, true},
		"every resource":                 {rbacv1.PolicyRule{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, true, true},
		"a group of Kubernetes' own":     {rbacv1.PolicyRule{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{group}, Resources: []string{"groups"}, ResourceNames: []string{"zt:dev", "system:masters"}}, true, true},
		"a service account":              {rbacv1.PolicyRule{Verbs: []string{"impersonate:serviceaccount"}, APIGroups: []string{group}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{"builder"}}, true, true},
		"any node":                       {rbacv1.PolicyRule{Verbs: []string{"impersonate:arbitrary-node"}, APIGroups: []string{group}, Resources: []string{"nodes"}}, true, true},
		"the node that it runs on":       {rbacv1.PolicyRule{Verbs: []string{"impersonate:associated-node"}, APIGroups: []string{group}, Resources: []string{"nodes"}}, true, true},
		"what may be done in a name":     {rbacv1.PolicyRule{Verbs: []string{"impersonate-on:user-info:list"}, APIGroups: []string{"*"}, Resources: []string{"*"}}, false, false},
		"nothing about impersonation":    {rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}, false, false},
		"a mode that nobody knows yet":   {rbacv1.PolicyRule{Verbs: []string{"impersonate:future"}, APIGroups: []string{group}, Resources: []string{"users"}}, true, true},
		"a non-resource rule of reading": {rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"*"}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for profile, want := range map[v1alpha1.ImpersonationProfile]bool{v1alpha1.ImpersonationLegacy: test.legacy, v1alpha1.ImpersonationConstrained: test.wide} {
				if got := tooWide(profile, []rbacv1.PolicyRule{test.rule}); (got != "") != want {
					t.Errorf("%s: %q, want too wide %t", profile, got, want)
				}
			}
		})
	}
}
