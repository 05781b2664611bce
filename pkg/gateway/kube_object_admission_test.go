package gateway

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/env"
)

const admissionPath = "/apis/admissionregistration.k8s.io/v1/"

// protobufPolicy is an admission policy of an older version, as client-go would
// send it.
func protobufPolicy(t *testing.T, group string) string {
	t.Helper()
	scheme := runtime.NewScheme()
	must(t, admissionv1beta1.AddToScheme(scheme))
	var b bytes.Buffer
	must(t, protobuf.NewSerializer(scheme, scheme).Encode(&admissionv1beta1.MutatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1beta1", Kind: "MutatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		Spec: admissionv1beta1.MutatingAdmissionPolicySpec{MatchConstraints: &admissionv1beta1.MatchResources{
			ResourceRules: []admissionv1beta1.NamedRuleWithOperations{{RuleWithOperations: admissionv1beta1.RuleWithOperations{
				Operations: []admissionv1beta1.OperationType{"CREATE"},
				Rule:       admissionv1beta1.Rule{APIGroups: []string{group}, APIVersions: []string{"*"}, Resources: []string{"*"}},
			}}},
		}},
	}, &b))
	return b.String()
}

// TestAdmissionByBody: what an admission configuration would look at is read in
// every form in which it may be sent.
func TestAdmissionByBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: admins})
	alice := r.person("alice@example.com")
	const (
		json, yaml, proto = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
		merge, strategic  = "application/merge-patch+json", "application/strategic-merge-patch+json"
		apply             = "application/apply-patch+yaml"

		webhooks, mine = admissionPath + "mutatingwebhookconfigurations", admissionPath + "mutatingwebhookconfigurations/mine"
		policies       = admissionPath + "mutatingadmissionpolicies"
		pods           = `{"operations":["*"],"apiGroups":[""],"apiVersions":["*"],"resources":["pods"]}`
		own            = `{"operations":["*"],"apiGroups":["example.com"],"apiVersions":["*"],"resources":["*"]}`
		others         = `"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["zt-system"]}]}`
	)
	for name, test := range map[string]struct {
		method, path, contentType, body string
		want                            int
	}{
		"pods":                      {"POST", webhooks, json, `{"metadata":{"name":"mine"},"webhooks":[{"name":"a","rules":[` + own + `]},{"name":"b","rules":[` + pods + `]}]}`, 403},
		"pods elsewhere":            {"POST", webhooks, json, `{"metadata":{"name":"mine"},"webhooks":[{"name":"a","rules":[` + pods + `],` + others + `}]}`, 200},
		"own kinds":                 {"POST", webhooks, json, `{"metadata":{"name":"mine"},"webhooks":[{"name":"a","rules":[` + own + `]}]}`, 200},
		"update":                    {"PUT", mine, json, `{"metadata":{"name":"mine"},"webhooks":[{"name":"a","rules":[` + pods + `]}]}`, 403},
		"validated secrets":         {"POST", admissionPath + "validatingwebhookconfigurations", yaml, "webhooks: [{name: a, rules: [{apiGroups: ['*'], resources: [secrets]}]}]", 403},
		"labels":                    {"PATCH", mine, strategic, `{"metadata":{"labels":{"a":"b"}}}`, 200},
		"another address":           {"PATCH", mine, strategic, `{"webhooks":[{"name":"a","clientConfig":{"url":"https://evil.example.com"}}]}`, 403},
		"the selector goes":         {"PATCH", mine, strategic, `{"webhooks":[{"name":"a","rules":[` + pods + `],"namespaceSelector":{"$patch":"delete",` + strings.TrimPrefix(others, `"namespaceSelector":{`) + `}]}`, 403},
		"own kinds, patched":        {"PATCH", mine, merge, `{"webhooks":[{"name":"a","rules":[` + own + `]}]}`, 200},
		"own kinds, applied":        {"PATCH", mine + "?fieldManager=x", apply, "webhooks:\n- name: a\n  rules:\n  - {apiGroups: [example.com], resources: ['*']}\n", 200},
		"pods, applied":             {"PATCH", mine + "?fieldManager=x", apply, "webhooks:\n- name: a\n  rules:\n  - {apiGroups: [''], resources: ['*']}\n", 403},
		"JSON patch":                {"PATCH", mine, "application/json-patch+json", `[{"op":"remove","path":"/webhooks/0/namespaceSelector"}]`, 403},
		"policy":                    {"POST", policies, json, `{"metadata":{"name":"mine"},"spec":{"matchConstraints":{"resourceRules":[` + pods + `]}}}`, 403},
		"policy elsewhere":          {"POST", policies, json, `{"metadata":{"name":"mine"},"spec":{"matchConstraints":{"resourceRules":[` + pods + `],` + others + `}}}`, 200},
		"policy, older, protobuf":   {"POST", strings.Replace(policies, "/v1/", "/v1beta1/", 1), proto, protobufPolicy(t, "rbac.authorization.k8s.io"), 403},
		"policy, older, own kinds":  {"POST", strings.Replace(policies, "/v1/", "/v1beta1/", 1), proto, protobufPolicy(t, "example.com"), 200},
		"policy, other mutations":   {"PATCH", policies + "/mine", merge, `{"spec":{"mutations":[]}}`, 403},
		"policy, labels":            {"PATCH", policies + "/mine", merge, `{"metadata":{"labels":null}}`, 200},
		"binding":                   {"POST", admissionPath + "validatingadmissionpolicybindings", json, `{"metadata":{"name":"mine"},"spec":{"policyName":"mine","paramRef":{"name":"x","namespace":"dev"}}}`, 200},
		"binding to zt's":           {"POST", admissionPath + "validatingadmissionpolicybindings", json, `{"metadata":{"name":"mine"},"spec":{"policyName":"mine","paramRef":{"name":"x","namespace":"zt-system"}}}`, 403},
		"mutating binding to zt's":  {"PATCH", admissionPath + "mutatingadmissionpolicybindings/mine", merge, `{"spec":{"paramRef":{"namespace":"zt-system"}}}`, 403},
		"a kind that nobody knows":  {"POST", strings.Replace(webhooks, "/v1/", "/v9/", 1), json, `{"metadata":{"name":"mine"}}`, 403},
		"something else in the API": {"POST", admissionPath + "things", json, `{"webhooks":[{"name":"b","rules":[` + pods + `]}]}`, 200},
	} {
		t.Run(name, func(t *testing.T) {
			request := alice.request(test.method, test.path, strings.NewReader(test.body))
			request.Header.Set("Content-Type", test.contentType)
			got := r.do(alice.http("h2"), request)
			if got.code != test.want {
				t.Fatalf("%d %s, want %d", got.code, got.body, test.want)
			}
			if test.want == http.StatusOK {
				r.upstream.one()
				return
			}
			r.upstream.none()
			if record := r.outcome(got.decision); record.Reason != wire.ReasonBuiltinDenied {
				t.Errorf("%s", got.body)
			}
		})
	}
}

// TestClusterAdminOfTheRealAPI: whom RBAC lets do everything does an
// administrator's work through zt, and does not get what is zt's.
func TestClusterAdminOfTheRealAPI(t *testing.T) {
	t.Parallel()
	r, cp := realRig(t, v1alpha1.ImpersonationConstrained, strings.ReplaceAll(everything, "all", "clusteradmin"))
	grant(t, cp, "clusteradmin", "cluster-admin")
	alice := r.person("alice@example.com", "clusteradmin")
	discovery, err := cp.Client().RbacV1().ClusterRoles().Get(t.Context(), "system:discovery", metav1.GetOptions{})
	must(t, err)

	const hook = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: cluster-admin-test}
webhooks:
- name: a.example.com
  clientConfig: {url: "https://127.0.0.1:1/"}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [no-such-namespace]}]}
  rules: [{operations: [CREATE], apiGroups: ["GROUP"], apiVersions: ["*"], resources: ["*"]}]
`
	for _, test := range []struct {
		name, stdin string
		args        []string
		refused     string // "" passes
	}{
		{"install a webhook", strings.Replace(hook, "GROUP", "apps", 1), []string{"apply", "-f", "-"}, ""},
		{"the same again, changed", strings.Replace(hook, "GROUP", "example.com", 1), []string{"apply", "-f", "-"}, ""},
		{"remove it", "", []string{"delete", "mutatingwebhookconfiguration", "cluster-admin-test"}, ""},
		{"a webhook on bindings", strings.Replace(hook, "GROUP", "rbac.authorization.k8s.io", 1), []string{"apply", "-f", "-"}, "zt's own"},
		{"pods of all namespaces", "", []string{"get", "pods", "-A"}, ""},
		{"configmaps of a namespace", "", []string{"get", "configmaps", "-n", "kube-system"}, ""},
		{"configmaps of all namespaces", "", []string{"get", "configmaps", "-A"}, "-n"},
		{"secrets of all namespaces", "", []string{"get", "secrets", "-A"}, "-n"},
		{"a role", "", []string{"create", "clusterrole", "cluster-admin-test", "--verb=get", "--resource=pods"}, ""},
		{"remove the role", "", []string{"delete", "clusterrole", "cluster-admin-test"}, ""},
		{"a role of everybody's", "", []string{"patch", "clusterrole", "system:discovery", "--type=merge", "-p", `{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["impersonate"]}]}`}, "everybody's"},
		{"a built-in API", "", []string{"patch", "apiservice", "v1.authorization.k8s.io", "--type=merge", "-p", `{"metadata":{"labels":{"kube-aggregator.kubernetes.io/automanaged":null}}}`}, "Kubernetes' own"},
	} {
		stdout, stderr, err := alice.kubectlWith(cp, env.Command{Stdin: strings.NewReader(test.stdin)}, test.args...)
		switch {
		case test.refused == "" && err != nil:
			t.Errorf("%s: %v\n%s%s", test.name, err, stdout, stderr)
		case test.refused != "" && (err == nil || !strings.Contains(stderr, "zt:") || !strings.Contains(stderr, test.refused)):
			t.Errorf("%s: %v\n%s%s", test.name, err, stdout, stderr)
		}
	}
	after, err := cp.Client().RbacV1().ClusterRoles().Get(t.Context(), "system:discovery", metav1.GetOptions{})
	if err != nil || after.ResourceVersion != discovery.ResourceVersion {
		t.Errorf("system:discovery was changed: %v", err)
	}
	if _, err := cp.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "cluster-admin-test", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the webhook is there: %v", err)
	}
}
