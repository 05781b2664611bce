package gateway

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env"
)

func holds(k *Kube, condition string) bool {
	return slices.ContainsFunc(k.Conditions(), func(c Condition) bool { return c.Type == condition })
}

// TestTooWideLegacy: the legacy profile promises that groups are named, and an
// account that may take any, or become a service account, is not used there.
func TestTooWideLegacy(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	for name, extra := range map[string]rbacv1.PolicyRule{
		"groups":   {Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}},
		"masters":  {Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"groups"}, ResourceNames: []string{"system:masters"}},
		"accounts": {Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts"}},
		"star":     {Verbs: []string{"*"}, APIGroups: []string{"apps"}, Resources: []string{"deployments"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := append(needsOf(t, v1alpha1.ImpersonationLegacy, everything).Rules(), extra)
			token := account(t, cp, "zt-impersonate-wide-legacy-"+name, rules)
			r := newRig(t, rigOptions{url: cp.URL, ca: cp.CAPEM, token: token, profile: v1alpha1.ImpersonationLegacy, noWait: true})
			r.eventually("the proof", func() bool { return holds(r.kube, ConditionTooWide) })
			got := r.person("alice@example.com").get("/api/v1/pods")
			if got.code != http.StatusForbidden || !strings.Contains(got.body, "zt-gateway rbac") {
				t.Errorf("%d %s", got.code, got.body)
			}
			if r.kube.Reachable() {
				t.Error("reachable")
			}
		})
	}
}
