package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
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

// reviewer is an API server that answers questions about the account as it is
// told.
type reviewer struct {
	server     *httptest.Server
	down       atomic.Bool // answers nothing but /readyz
	dead       atomic.Bool // not even that
	incomplete atomic.Bool
	wide       atomic.Bool
}

func newReviewer(t *testing.T) *reviewer {
	t.Helper()
	v := &reviewer{}
	v.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case v.dead.Load(), v.down.Load() && r.URL.Path != "/readyz":
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasSuffix(r.URL.Path, "/selfsubjectrulesreviews"):
			var review authorizationv1.SelfSubjectRulesReview
			review.Status.Incomplete = v.incomplete.Load()
			if v.wide.Load() {
				review.Status.ResourceRules = []authorizationv1.ResourceRule{{Verbs: []string{"*"}}}
			}
			_ = json.NewEncoder(w).Encode(review)
		default:
			_, _ = io.WriteString(w, "{}")
		}
	}))
	t.Cleanup(v.server.Close)
	return v
}

// TestProofAges: a proof counts for three periods and no longer, however it was
// found, while the API server answers other questions or none; then the account is
// not used until there is a new one.
func TestProofAges(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fails      func(*reviewer) *atomic.Bool
		incomplete bool
		wide       bool
	}{
		"proven":              {fails: func(v *reviewer) *atomic.Bool { return &v.down }},
		"asked singly":        {fails: func(v *reviewer) *atomic.Bool { return &v.down }, incomplete: true},
		"no answer at all":    {fails: func(v *reviewer) *atomic.Bool { return &v.dead }},
		"too wide":            {fails: func(v *reviewer) *atomic.Bool { return &v.down }, wide: true},
		"too wide, no answer": {fails: func(v *reviewer) *atomic.Bool { return &v.dead }, wide: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newReviewer(t)
			v.incomplete.Store(test.incomplete)
			v.wide.Store(test.wide)
			r := newRig(t, rigOptions{url: v.server.URL, ca: certificatePEM(v.server.Certificate()), noWait: test.wide})
			r.kube.check(t.Context())
			refused := func(after time.Duration, want wire.Reason, text string) {
				t.Helper()
				r.ahead.Store(int64(after))
				r.kube.check(t.Context())
				refusal := r.kube.unusable()
				switch {
				case (refusal == nil) != (want == ""), refusal != nil && (refusal.Reason != want || !strings.Contains(refusal.Message, text)):
					t.Errorf("after %s: %v, want %q %q", after, refusal, want, text)
				case refusal != nil && r.kube.Reachable():
					t.Errorf("after %s: reachable", after)
				}
			}
			if test.wide {
				test.fails(v).Store(true)
				refused(time.Hour, wire.ReasonRBACStale, "more than its profile")
				return
			}
			refused(0, "", "")
			test.fails(v).Store(true)
			refused(proveEvery+time.Second, "", "")
			refused(proofLife-time.Second, "", "")
			refused(proofLife+time.Minute, wire.ReasonClusterDown, "for 15 minutes")
			if !holds(r.kube, ConditionUnknownState) || holds(r.kube, ConditionUnproven) {
				t.Errorf("conditions: %v", r.kube.Conditions())
			}
			test.fails(v).Store(false)
			refused(proofLife+2*time.Minute, "", "")
			if holds(r.kube, ConditionUnknownState) || !r.kube.Reachable() {
				t.Errorf("conditions: %v", r.kube.Conditions())
			}
		})
	}
}
