package gateway

import (
	"reflect"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kube-zt/zt/pkg/gateway/policy"
)

// admissionKinds are the same in all versions in which Kubernetes serves them, in
// JSON and in protobuf, so that one Go type reads all.
var admissionKinds = map[string]struct {
	kind   string
	object runtime.Object
}{
	"mutatingwebhookconfigurations":     {"MutatingWebhookConfiguration", &admissionv1.MutatingWebhookConfiguration{}},
	"validatingwebhookconfigurations":   {"ValidatingWebhookConfiguration", &admissionv1.ValidatingWebhookConfiguration{}},
	"mutatingadmissionpolicies":         {"MutatingAdmissionPolicy", &admissionv1.MutatingAdmissionPolicy{}},
	"validatingadmissionpolicies":       {"ValidatingAdmissionPolicy", &admissionv1.ValidatingAdmissionPolicy{}},
	"mutatingadmissionpolicybindings":   {"MutatingAdmissionPolicyBinding", &admissionv1.MutatingAdmissionPolicyBinding{}},
	"validatingadmissionpolicybindings": {"ValidatingAdmissionPolicyBinding", &admissionv1.ValidatingAdmissionPolicyBinding{}},
}

func addAdmissionKinds(s *runtime.Scheme) {
	for _, k := range admissionKinds {
		for _, version := range []string{"v1", "v1beta1", "v1alpha1"} {
			s.AddKnownTypeWithName(schema.GroupVersionKind{Group: admissionv1.GroupName, Version: version, Kind: k.kind}, k.object)
		}
	}
}

// admissionOf takes out of an admission configuration what policy looks at.
func admissionOf(object *policy.Object, decoded runtime.Object) {
	switch a := decoded.(type) {
	case *admissionv1.MutatingWebhookConfiguration:
		for i := range a.Webhooks {
			w := &a.Webhooks[i]
			object.Admissions = append(object.Admissions, policy.Admission{Rules: admissionRules(w.Rules), Namespaces: w.NamespaceSelector})
		}
	case *admissionv1.ValidatingWebhookConfiguration:
		for i := range a.Webhooks {
			w := &a.Webhooks[i]
			object.Admissions = append(object.Admissions, policy.Admission{Rules: admissionRules(w.Rules), Namespaces: w.NamespaceSelector})
		}
	case *admissionv1.MutatingAdmissionPolicy:
		// A patch of something else than the specification changes nothing here.
		if !reflect.ValueOf(a.Spec).IsZero() {
			object.Admissions = append(object.Admissions, matchOf(a.Spec.MatchConstraints))
		}
	case *admissionv1.ValidatingAdmissionPolicy:
		if !reflect.ValueOf(a.Spec).IsZero() {
			object.Admissions = append(object.Admissions, matchOf(a.Spec.MatchConstraints))
		}
	case *admissionv1.MutatingAdmissionPolicyBinding:
		if a.Spec.ParamRef != nil {
			object.ParamNamespace = a.Spec.ParamRef.Namespace
		}
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		if a.Spec.ParamRef != nil {
			object.ParamNamespace = a.Spec.ParamRef.Namespace
		}
	}
}

func matchOf(match *admissionv1.MatchResources) policy.Admission {
	if match == nil {
		return policy.Admission{}
	}
	rules := make([]admissionv1.RuleWithOperations, len(match.ResourceRules))
	for i := range rules {
		rules[i] = match.ResourceRules[i].RuleWithOperations
	}
	return policy.Admission{Rules: admissionRules(rules), Namespaces: match.NamespaceSelector}
}

func admissionRules(rules []admissionv1.RuleWithOperations) []policy.AdmissionRule {
	out := make([]policy.AdmissionRule, len(rules))
	for i := range rules {
		out[i] = policy.AdmissionRule{Groups: rules[i].APIGroups, Resources: rules[i].Resources}
	}
	return out
}
