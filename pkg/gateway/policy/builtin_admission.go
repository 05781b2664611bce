package policy

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Admission sees every object before it is stored, tokens and Secrets among
// them, and may alter it: the image of the gateway's pod, or whom a binding binds
// after zt has looked. An administrator installs such things all the time, for
// objects of his own kinds mostly, or of some namespaces: that stays allowed. What
// would reach zt's own is refused, by what a request says of itself, since what is
// stored already is not known here.

const (
	admissionGroup = "admissionregistration.k8s.io"
	nameLabel      = "kubernetes.io/metadata.name"
)

// Admission is one webhook, or the match constraints of an admission policy.
type Admission struct {
	Rules []AdmissionRule
	// Namespaces selects by the labels of an object's namespace.
	Namespaces *metav1.LabelSelector
}

// AdmissionRule says which objects are looked at.
type AdmissionRule struct {
	Groups, Resources []string
}

// Kinds of admission, by the resource that configures them.
const (
	mutatingWebhooks   = "mutatingwebhookconfigurations"
	validatingWebhooks = "validatingwebhookconfigurations"
	mutatingPolicies   = "mutatingadmissionpolicies"
	validatingPolicies = "validatingadmissionpolicies"
	mutatingBindings   = "mutatingadmissionpolicybindings"
	validatingBindings = "validatingadmissionpolicybindings"
)

func (q *query) admits() bool {
	if q.group != admissionGroup {
		return false
	}
	switch q.res {
	case mutatingWebhooks, validatingWebhooks, mutatingPolicies, validatingPolicies, mutatingBindings, validatingBindings:
		return true
	}
	return false
}

// admissionDeny judges what o would look at.
func (q *query) admissionDeny(o *Object) refused {
	if o.ParamNamespace == SystemNamespace {
		// Parameters are read with the API server's rights and shown to whoever
		// wrote the policy.
		return because("its parameters would be read out of namespace " + SystemNamespace)
	}
	for i := range o.Admissions {
		if o.Admissions[i].reaches(q.res, q.bit == verbPatch) {
			return refused{
				"it would look at what is zt's own, or alter it",
				"others name apiGroups that zt does not use, or leave " + SystemNamespace + " out by namespaceSelector (" + nameLabel + " NotIn) and are sent whole (kubectl replace)",
			}
		}
	}
	return refused{}
}

// guardedGroups have objects of zt's outside any namespace, or decide what zt's
// accounts may do: mutating them anywhere undoes what was judged here.
var guardedGroups = []string{
	apiGroup, rbacGroup, "authorization.openshift.io", "authentication.k8s.io", "authorization.k8s.io",
	extensionsGroup, aggregationGroup, certificatesGroup,
}

// workloadGroups have objects in zt's namespace.
var workloadGroups = []string{"", "apps", "batch", "coordination.k8s.io", "discovery.k8s.io", "networking.k8s.io", "policy", "autoscaling"}

// reaches reports whether a would look at what is zt's own. A patch that does not
// say which objects a looks at leaves that as it was, which may be anything; and
// what it says of a selector is not all: a null or a directive ("$patch") may take
// the rest away. Rules are replaced as a whole by every form of patch.
func (a *Admission) reaches(res string, patch bool) bool {
	if patch && len(a.Rules) == 0 {
		return true
	}
	spares := !patch && a.spares()
	for i := range a.Rules {
		if a.Rules[i].reaches(res, spares) {
			return true
		}
	}
	return false
}

func (r *AdmissionRule) reaches(res string, spares bool) bool {
	for _, group := range r.Groups {
		switch {
		case group == "*", group == apiGroup:
			return true // whoever may refuse zt's objects can keep a revocation from being written
		case res == validatingPolicies:
		case res == validatingWebhooks:
			// It alters nothing, so that only what must not be seen counts.
			if group == "authentication.k8s.io" || group == "" && !spares && slices.ContainsFunc(r.Resources, secret) {
				return true
			}
		case slices.Contains(guardedGroups, group):
			return true
		case !spares && slices.Contains(workloadGroups, group):
			return true
		}
	}
	return false
}

// secret reports whether a rule's resource holds what must not be seen.
func secret(resource string) bool {
	return strings.Contains(resource, "*") || slices.Contains([]string{"secrets", "configmaps", "serviceaccounts/token"}, resource)
}

// spares reports whether a leaves out zt's namespace for certain. Its name is the
// one label that no administrator chooses.
func (a *Admission) spares() bool {
	if a.Namespaces == nil {
		return false
	}
	if name, ok := a.Namespaces.MatchLabels[nameLabel]; ok && name != SystemNamespace {
		return true
	}
	return slices.ContainsFunc(a.Namespaces.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		if r.Key != nameLabel {
			return false
		}
		switch r.Operator {
		case metav1.LabelSelectorOpIn:
			return !slices.Contains(r.Values, SystemNamespace)
		case metav1.LabelSelectorOpNotIn:
			return slices.Contains(r.Values, SystemNamespace)
		}
		return false
	})
}
