package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// TestMethodsOfURLs: the account that `zt-gateway rbac` prints may do on URLs, in
// a person's name, what policies let pass there, by whatever method.
func TestMethodsOfURLs(t *testing.T) {
	t.Parallel()
	permissive := strings.Replace(readers, "spec:\n  roles: [all]", "spec:\n  enforcement: {mode: Permissive, until: "+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+"}\n  roles: [all]", 1)
	if permissive == readers {
		t.Fatal("nothing was replaced")
	}
	for name, manifests := range map[string]string{"allowed": everything, "permissive": permissive} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, cp := realRig(t, v1alpha1.ImpersonationConstrained, strings.ReplaceAll(manifests, "all", "urls"))
			grant(t, cp, "urls", "cluster-admin")
			alice := r.person("alice@example.com", "urls")
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
				for _, path := range []string{"/metrics", "/api", "/no/such/thing"} {
					got := r.do(alice.http("h2"), alice.request(method, path, nil))
					if got.code == http.StatusForbidden {
						t.Errorf("%s %s: %s", method, path, got.body)
					}
				}
			}
		})
	}
}
