package e2e

import (
	"strings"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// V098 and V099, as long as no role allows nesting: even a cluster-admin may not
// act as somebody else through zt, least of all as one of Kubernetes' own, and
// the cluster never hears of it.
func TestNoNesting(t *testing.T) {
	s := world(t)
	carol := admin(t, s)
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"V098 user and group", []string{"--as", "nested-bob", "--as-group", "dev"}},
		{"V098 uid", []string{"--as", "nested-bob", "--as-uid", "7"}},
		{"V099 masters", []string{"--as", "nested-bob", "--as-group", "system:masters"}},
		{"V099 service account", []string{"--as", "system:serviceaccount:kube-system:nested-bob"}},
		{"V099 node", []string{"--as", "system:node:nested-bob"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := carol.Kubectl(t.Context(), append([]string{"get", "pods"}, tt.args...)...)
			if res.Code == 0 {
				t.Errorf("acted as somebody else: %v", res)
			}
			wantIn(t, res.Stderr, "acting as somebody else is not allowed")
		})
	}
	events, err := s.ControlPlane.Audit(func(e *auditv1.Event) bool {
		return strings.Contains(e.User.Username, "nested-bob") || e.ImpersonatedUser != nil && strings.Contains(e.ImpersonatedUser.Username, "nested-bob")
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 0 {
		t.Errorf("the cluster saw %d of the requests", len(events))
	}
}
