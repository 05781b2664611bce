package policy

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/wire"
)

// TestBuiltinDeniesOfAdmission: what would look at zt's own things is refused,
// what an administrator installs for others is not.
func TestBuiltinDeniesOfAdmission(t *testing.T) {
	t.Parallel()
	c := bodyWorld(t)
	rules := func(group string, resources ...string) []AdmissionRule {
		return []AdmissionRule{{Groups: []string{"cert-manager.io"}, Resources: []string{"*"}}, {Groups: []string{group}, Resources: resources}}
	}
	core := func(resources ...string) []AdmissionRule {
		return []AdmissionRule{{Groups: []string{""}, Resources: resources}}
	}
	where := func(operator metav1.LabelSelectorOperator, key string, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: operator, Values: values}}}
	}
	others := where(metav1.LabelSelectorOpNotIn, nameLabel, "kube-system", "zt-system")
	labelled := func(key, value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
	}
	const (
		mwc, vwc = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
		mp, vp   = "mutatingadmissionpolicies", "validatingadmissionpolicies"
		all      = mwc + " " + vwc + " " + mp + " " + vp
	)
	for name, tt := range map[string]struct {
		kinds  string
		rules  []AdmissionRule
		where  *metav1.LabelSelector
		create bool // also update
		patch  bool
	}{
		"objects of one's own":                {all, rules("example.com", "*/*"), nil, true, true},
		"nothing":                             {all, nil, nil, true, false},
		"everything":                          {all, rules("*", "*"), nil, false, false},
		"everything elsewhere":                {all, rules("*", "*/*"), others, false, false}, // bindings, tokens and revocations are in no namespace
		"zt's objects":                        {all, rules("kube-zt.io", "revocations"), others, false, false},
		"pods":                                {mwc + " " + mp, core("pods"), nil, false, false},
		"pods elsewhere":                      {mwc + " " + mp, core("pods"), others, true, false},
		"pods of one namespace":               {mwc, core("pods"), where(metav1.LabelSelectorOpIn, nameLabel, "dev", "test"), true, false},
		"pods of zt's namespace, too":         {mwc, core("pods"), where(metav1.LabelSelectorOpIn, nameLabel, "dev", "zt-system"), false, false},
		"pods of all but another":             {mwc, core("pods"), where(metav1.LabelSelectorOpNotIn, nameLabel, "kube-system"), false, false},
		"pods by the name's label":            {mwc, core("pods"), labelled(nameLabel, "dev"), true, false},
		"pods by zt's name":                   {mwc, core("pods"), labelled(nameLabel, "zt-system"), false, false},
		"pods by a label that zt may have":    {mwc, core("pods"), labelled("team", "platform"), false, false},
		"pods where a name is":                {mwc, core("pods"), where(metav1.LabelSelectorOpExists, nameLabel), false, false},
		"pods, validated":                     {vwc + " " + vp, core("pods"), nil, true, true},
		"secrets, validated":                  {vwc, core("secrets"), nil, false, false},
		"secrets elsewhere, validated":        {vwc, core("secrets"), others, true, false},
		"every core object, validated":        {vwc, core("*"), nil, false, false},
		"tokens of accounts, validated":       {vwc, core("pods", "serviceaccounts/token"), nil, false, false},
		"tokens, validated":                   {vwc, rules("authentication.k8s.io", "tokenreviews"), others, false, false},
		"ingresses, validated":                {vwc, rules("networking.k8s.io", "ingresses"), nil, true, true},
		"secrets, by an expression":           {vp, core("secrets"), nil, true, true}, // it may refuse and tell nobody
		"deployments":                         {mwc + " " + mp, rules("apps", "deployments"), nil, false, false},
		"bindings in other namespaces":        {mwc + " " + mp, rules("rbac.authorization.k8s.io", "rolebindings"), others, false, false},
		"bindings, validated":                 {vwc + " " + vp, rules("rbac.authorization.k8s.io", "rolebindings"), nil, true, true},
		"reviews by which the proof is asked": {mwc + " " + mp, rules("authorization.k8s.io", "selfsubjectaccessreviews"), others, false, false},
		"definitions":                         {mwc, rules("apiextensions.k8s.io", "customresourcedefinitions"), nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind := range strings.FieldsSeq(tt.kinds) {
				for what, want := range map[string]bool{"create ": tt.create, "update ": tt.create, "patch ": tt.patch} {
					for role, want := range map[wire.Role]bool{"root": want, "zt-admin": true} {
						in := ask(what+kind+".admissionregistration.k8s.io /x", role)
						in.Object = &Object{Name: "x", Admissions: []Admission{{Rules: tt.rules, Namespaces: tt.where}}}
						d := c.Decide(in)
						if d.Allowed != want || !want && (d.Reason != wire.ReasonBuiltinDenied || !strings.Contains(d.Hint, "namespaceSelector")) {
							t.Errorf("%s%s as %s: %+v", what, kind, role, d)
						}
					}
				}
			}
		})
	}
	for _, kind := range []string{mwc, vwc, mp, vp, "mutatingadmissionpolicybindings", "validatingadmissionpolicybindings"} {
		for verb, want := range map[string]bool{"create": true, "update": true, "patch": true, "delete": false, "get": false} {
			in := ask(verb+" "+kind+".admissionregistration.k8s.io /x", "root")
			if c.WantsObject(&in) != want {
				t.Errorf("%s %s: want the body %t", verb, kind, want)
			}
			if d := c.Decide(in); !d.Allowed {
				t.Errorf("%s %s: %+v", verb, kind, d)
			}
			in.Object = &Object{ParamNamespace: "zt-system"}
			if d := c.Decide(in); d.Allowed == want {
				t.Errorf("%s %s with parameters of zt's: %+v", verb, kind, d)
			}
		}
	}
}
