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

// clusterScoped knows the resources of Kubernetes itself that have no
// namespace. Of others it cannot be known here, and a Deny for a namespace then
// holds for a list of all.
func clusterScoped(group, resource string) bool {
	switch group {
	case "":
		return resource == "nodes" || resource == "namespaces" || resource == "persistentvolumes" || resource == "componentstatuses"
	case "rbac.authorization.k8s.io":
		return resource == "clusterroles" || resource == "clusterrolebindings"
	case "networking.k8s.io":
		return resource == "ingressclasses" || resource == "ipaddresses" || resource == "servicecidrs"
	case "storage.k8s.io":
		return resource != "csistoragecapacities"
	case "resource.k8s.io":
		return resource == "deviceclasses" || resource == "resourceslices"
	case "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io",
		"certificates.k8s.io", "flowcontrol.apiserver.k8s.io", "node.k8s.io", "scheduling.k8s.io":
		return true
	}
	return false
}
