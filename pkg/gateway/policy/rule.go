package policy

import "github.com/kube-zt/zt/pkg/api/v1alpha1"

// rule is a compiled PolicyRule.
type rule struct {
	verbs      verbs
	groups     patterns
	resources  []resourcePattern
	namespaces patterns // nil: any, and cluster scope
	names      patterns // nil: any
	paths      patterns // set: a rule about non-resource URLs
}

func compileRule(in *v1alpha1.PolicyRule) rule {
	r := rule{
		groups:     compilePatterns(in.APIGroups),
		namespaces: compilePatterns(in.Namespaces),
		names:      compilePatterns(in.ResourceNames),
		paths:      compilePatterns(in.NonResourceURLs),
	}
	for _, verb := range in.Verbs {
		if verb == "*" {
			r.verbs = ^verbs(0)
			break
		}
		r.verbs |= verbBit(verb) &^ verbOther
	}
	for _, resource := range in.Resources {
		r.resources = append(r.resources, compileResource(resource))
	}
	return r
}

// covers reports whether an Allow, whose verb and resource match, speaks of the
// whole request. A list across all namespaces is not covered by a rule for
// some, nor a nameless request by a rule for names.
func (r *rule) covers(q *query) bool {
	if !q.resource {
		return r.paths.match(q.path)
	}
	if q.kubelet() && !r.listsKubelet() {
		return false
	}
	return r.groups.match(q.group) && r.coversNamespace(q) && r.coversName(q)
}

func (r *rule) coversNamespace(q *query) bool {
	return r.namespaces == nil || q.namespace != "" && r.namespaces.match(q.namespace)
}

func (r *rule) coversName(q *query) bool {
	return r.names == nil || q.name != "" && r.names.match(q.name)
}

// touches reports whether a Deny, whose verb and resource match, speaks of any
// part of the request. A list across all namespaces touches every namespace, and
// a nameless request every name, or else a Deny of one object would be passed by
// asking for all of them.
func (r *rule) touches(q *query) bool {
	if !q.resource {
		return r.paths.match(q.path)
	}
	return r.groups.match(q.group) && r.touchesNamespace(q) && r.touchesName(q)
}

func (r *rule) touchesNamespace(q *query) bool {
	switch {
	case r.namespaces == nil:
		return true
	case q.namespace != "":
		return r.namespaces.match(q.namespace)
	default:
		return q.collection && !clusterScoped(q.group, q.res)
	}
}

func (r *rule) touchesName(q *query) bool {
	switch {
	case r.names == nil:
		return true
	case q.name != "":
		return r.names.match(q.name)
	default:
		// A create names its object only in its body.
		return q.collection || q.bit == verbCreate
	}
}

func (r *rule) matchResource(q *query) bool {
	for i := range r.resources {
		if r.resources[i].match(q.res, q.sub) {
			return true
		}
	}
	return false
}

// listsKubelet: nodes/proxy must be written out; neither "*/*" nor "nodes/*",
// which people write for nodes/status, means it.
func (r *rule) listsKubelet() bool {
	for i := range r.resources {
		p := &r.resources[i]
		if p.resource.exact && p.resource.head == "nodes" && p.hasSub && p.sub.exact && p.sub.head == "proxy" {
			return true
		}
	}
	return false
}

// clusterScoped knows, one by one, the resources of Kubernetes itself that have
// no namespace. Of any other it cannot be known here whether it has: groups mix
// the two and grow, so a Deny for a namespace then holds for a list of all.
func clusterScoped(group, resource string) bool {
	return withoutNamespace[kind{group, resource}]
}

type kind struct{ group, resource string }

// withoutNamespace is as of Kubernetes 1.36.
var withoutNamespace = map[kind]bool{
	{"", "componentstatuses"}: true,
	{"", "namespaces"}:        true,
	{"", "nodes"}:             true,
	{"", "persistentvolumes"}: true,

	{"admissionregistration.k8s.io", "mutatingadmissionpolicies"}:         true,
	{"admissionregistration.k8s.io", "mutatingadmissionpolicybindings"}:   true,
	{"admissionregistration.k8s.io", "mutatingwebhookconfigurations"}:     true,
	{"admissionregistration.k8s.io", "validatingadmissionpolicies"}:       true,
	{"admissionregistration.k8s.io", "validatingadmissionpolicybindings"}: true,
	{"admissionregistration.k8s.io", "validatingwebhookconfigurations"}:   true,
	{"apiextensions.k8s.io", "customresourcedefinitions"}:                 true,
	{"apiregistration.k8s.io", "apiservices"}:                             true,
	{"certificates.k8s.io", "certificatesigningrequests"}:                 true,
	{"certificates.k8s.io", "clustertrustbundles"}:                        true,
	{"flowcontrol.apiserver.k8s.io", "flowschemas"}:                       true,
	{"flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"}:       true,
	{"internal.apiserver.k8s.io", "storageversions"}:                      true,
	{"networking.k8s.io", "ingressclasses"}:                               true,
	{"networking.k8s.io", "ipaddresses"}:                                  true,
	{"networking.k8s.io", "servicecidrs"}:                                 true,
	{"node.k8s.io", "runtimeclasses"}:                                     true,
	{"rbac.authorization.k8s.io", "clusterrolebindings"}:                  true,
	{"rbac.authorization.k8s.io", "clusterroles"}:                         true,
	{"resource.k8s.io", "deviceclasses"}:                                  true,
	{"resource.k8s.io", "devicetaintrules"}:                               true,
	{"resource.k8s.io", "resourcepoolstatusrequests"}:                     true,
	{"resource.k8s.io", "resourceslices"}:                                 true,
	{"scheduling.k8s.io", "priorityclasses"}:                              true,
	{"storage.k8s.io", "csidrivers"}:                                      true,
	{"storage.k8s.io", "csinodes"}:                                        true,
	{"storage.k8s.io", "storageclasses"}:                                  true,
	{"storage.k8s.io", "volumeattachments"}:                               true,
	{"storage.k8s.io", "volumeattributesclasses"}:                         true,
	{"storagemigration.k8s.io", "storageversionmigrations"}:               true,
}
