package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestForbiddenOfTheRealAPI: the API server's 403 about the gateway's account is
// told from one about the person, in whatever form the client wants it, and
// whatever the person calls things.
func TestForbiddenOfTheRealAPI(t *testing.T) {
	t.Parallel()
	const protobuf = "application/vnd.kubernetes.protobuf"
	own := `User "system:serviceaccount:zt-system:zt-impersonate-testforbiddenoftherealapi" cannot impersonate-on:user-info:get`
	r, _ := realRig(t, v1alpha1.ImpersonationConstrained, strings.ReplaceAll(readers, "all", "forbidden"))
	r.manifests(strings.ReplaceAll(everything, "all", "forbidden")) // which the account was not made for
	alice := r.person("alice@example.com", "forbidden")
	for _, test := range []struct {
		name, path string
		stale      bool
	}{
		{"a right that is missing", "/api/v1/namespaces/default/configmaps/x", true},
		{"a URL", "/metrics", true},
		{"a pod", "/api/v1/namespaces/default/pods/x", false},
		{"a pod of an odd name", "/api/v1/namespaces/default/pods/impersonate-on:user-info:get", false},
		{"a pod named by all of the text", "/api/v1/namespaces/default/pods/" + url.PathEscape(`x" is forbidden: `+own), false},
	} {
		for _, accept := range []string{"", "application/json", "application/yaml", protobuf, protobuf + ",application/json", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"} {
			request := alice.request(http.MethodGet, test.path, nil)
			if accept != "" {
				request.Header.Set("Accept", accept)
			}
			got := r.do(alice.http("h2"), request)
			switch {
			case got.code != http.StatusForbidden:
				t.Errorf("%s, %q: %d %q", test.name, accept, got.code, got.body)
			case !test.stale && (!strings.Contains(got.body, "zt:alice@example.com") || got.decision != ""):
				t.Errorf("%s, %q: %q", test.name, accept, got.body)
			case test.stale && (!strings.Contains(got.body, "zt-gateway rbac") || r.outcome(got.decision).Reason != wire.ReasonRBACStale):
				t.Errorf("%s, %q: %q", test.name, accept, got.body)
			}
		}
	}
	if !slices.ContainsFunc(r.kube.Conditions(), func(c Condition) bool { return c.Type == ConditionRBACStale }) {
		t.Errorf("conditions: %v", r.kube.Conditions())
	}
}
