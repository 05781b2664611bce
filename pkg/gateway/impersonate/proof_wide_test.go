package impersonate

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
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
		"legacy, every group by a star":  {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"*"}}, true, true},
		"legacy, Kubernetes' own group":  {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{"zt:dev", "system:masters"}}, true, true},
		"legacy, somebody else's group":  {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{"cluster-admins"}}, true, true},
		"legacy, service accounts":       {rbacv1.PolicyRule{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users", "serviceaccounts"}}, true, true},
		"somebody else's group":          {rbacv1.PolicyRule{Verbs: []string{"impersonate:user-info"}, APIGroups: []string{group}, Resources: []string{"groups"}, ResourceNames: []string{"cluster-admins"}}, true, true},
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

// TestBeyondTheProfile: where the API server does not list all rules, single
// questions find what is beyond a profile, in both.
func TestBeyondTheProfile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		profile v1alpha1.ImpersonationProfile
		may     string // verb, resource and name that is allowed
		want    Standing
	}{
		"nothing":                        {v1alpha1.ImpersonationConstrained, "", Unproven},
		"a user, constrained":            {v1alpha1.ImpersonationConstrained, "impersonate users zt:alice", TooWide},
		"masters, constrained":           {v1alpha1.ImpersonationConstrained, "impersonate:user-info groups system:masters", TooWide},
		"a user, legacy":                 {v1alpha1.ImpersonationLegacy, "impersonate users zt:alice", Unproven},
		"a role, legacy":                 {v1alpha1.ImpersonationLegacy, "impersonate groups zt:dev", Unproven},
		"masters, legacy":                {v1alpha1.ImpersonationLegacy, "impersonate groups system:masters", TooWide},
		"any group, legacy":              {v1alpha1.ImpersonationLegacy, "impersonate groups zt-nobody-in-particular", TooWide},
		"a service account, legacy":      {v1alpha1.ImpersonationLegacy, "impersonate serviceaccounts default", TooWide},
		"masters as constrained, legacy": {v1alpha1.ImpersonationLegacy, "impersonate:user-info groups system:masters", TooWide},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prover := &Prover{Base: &url.URL{Scheme: "https", Host: "x"}, Client: roundTripper(func(r *http.Request) (*http.Response, error) {
				answer := httptest.NewRecorder()
				if strings.HasSuffix(r.URL.Path, "/selfsubjectrulesreviews") {
					_, _ = io.WriteString(answer, `{"status":{"incomplete":true}}`)
					return answer.Result(), nil
				}
				var review authorizationv1.SelfSubjectAccessReview
				if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
					return nil, err
				}
				a := review.Spec.ResourceAttributes
				review.Status.Allowed = a.Verb+" "+a.Resource+" "+a.Name == test.may
				err := json.NewEncoder(answer).Encode(review)
				return answer.Result(), err
			})}
			proof, err := prover.Prove(t.Context(), Needs{Profile: test.profile, Roles: []wire.Role{"dev"}}, []string{"zt:alice"})
			if err != nil || proof.Standing != test.want {
				t.Errorf("%+v %v, want %s", proof, err, test.want)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
