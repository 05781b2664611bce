package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/env"
)

// lossy stands between the gateway and the API server and loses, when told so, all
// impersonation on the way.
type lossy struct {
	server *httptest.Server
	loses  atomic.Bool
}

func newLossy(t *testing.T, cp *env.ControlPlane) *lossy {
	t.Helper()
	target, err := url.Parse(cp.URL)
	must(t, err)
	l := &lossy{}
	l.server = httptest.NewTLSServer(&httputil.ReverseProxy{
		Transport: insecure(cp),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			for name := range r.Out.Header {
				if l.loses.Load() && strings.HasPrefix(name, "Impersonate-") {
					delete(r.Out.Header, name)
				}
			}
		},
	})
	t.Cleanup(l.server.Close)
	return l
}

// TestV103HeadersLost: were every impersonation header lost between the gateway and
// the API server, whoever has all rights there would have none, in both profiles.
func TestV103HeadersLost(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	for _, profile := range []v1alpha1.ImpersonationProfile{v1alpha1.ImpersonationConstrained, v1alpha1.ImpersonationLegacy} {
		t.Run(string(profile), func(t *testing.T) {
			t.Parallel()
			role := "lost" + strings.ToLower(string(profile))
			manifests := strings.ReplaceAll(everything, "all", role)
			name := "zt-impersonate-" + role
			l := newLossy(t, cp)
			r := newRig(t, rigOptions{
				url: l.server.URL, ca: certificatePEM(l.server.Certificate()), profile: profile, manifests: manifests,
				token: account(t, cp, name, needsOf(t, profile, manifests).Rules()),
			})
			grant(t, cp, role, "cluster-admin")
			must(t, cp.Apply(t.Context(), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: default}\n", role)))
			alice := r.person("alice@example.com", wire.Role(role))
			object := "/api/v1/namespaces/default/configmaps/" + role
			const json, merge = "application/json", "application/merge-patch+json"
			questions := []struct {
				method, path, contentType, body string
				verb                            string
				passes                          int // with the headers in place
			}{
				{"GET", object, "", "", "get", 200},
				{"GET", "/api/v1/namespaces/default/configmaps", "", "", "list", 200},
				{"GET", "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion=1", "", "", "watch", 200},
				{"POST", "/api/v1/namespaces/default/configmaps?dryRun=All", json, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"generateName":"x"}}`, "create", 201},
				{"PUT", object + "?dryRun=All", json, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"` + role + `"}}`, "update", 200},
				{"PATCH", object + "?dryRun=All", merge, `{"data":{"a":"b"}}`, "patch", 200},
				{"DELETE", object + "?dryRun=All", "", "", "delete", 200},
				{"DELETE", "/api/v1/namespaces/default/configmaps?dryRun=All", "", "", "deletecollection", 200},
				{"GET", "/api/v1/nodes", "", "", "list", 200},
				{"GET", "/api/v1/namespaces/kube-system/secrets", "", "", "list", 200},
				{"POST", "/api/v1/namespaces/default/pods/x/exec?command=id", "", "", "create", 404},
				{"GET", "/metrics", "", "", "get", 200},
				{"GET", "/logs/", "", "", "get", 404},
			}
			ask := func() (answers []reply) {
				for _, q := range questions {
					request := alice.request(q.method, q.path, strings.NewReader(q.body))
					if q.contentType != "" {
						request.Header.Set("Content-Type", q.contentType)
					}
					answers = append(answers, r.do(alice.http("h2"), request))
				}
				return answers
			}
			for i, got := range ask() {
				if q := questions[i]; got.code != q.passes {
					t.Errorf("%s %s with the headers: %d %.300s", q.method, q.path, got.code, got.body)
				}
			}
			l.loses.Store(true)
			for i, got := range ask() {
				q := questions[i]
				// It is the account that Kubernetes refuses, so the request did arrive.
				want := fmt.Sprintf(`User \"system:serviceaccount:zt-system:%s\" cannot %s `, name, q.verb)
				if got.code != http.StatusForbidden || !strings.Contains(got.body, want) {
					t.Errorf("%s %s without: %d %.300s, want %s", q.method, q.path, got.code, got.body, want)
				}
			}
		})
	}
}
