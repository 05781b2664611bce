package v1alpha1

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/spelling"
)

// Default implements Object.
func (a *AccessPolicy) Default() {
	if a.Spec.Effect == "" {
		a.Spec.Effect = EffectAllow
	}
	a.Spec.Enforcement.Default()
}

// Validate implements Object. That roles and clusters exist is judged where all
// objects are known.
func (a *AccessPolicy) Validate(now time.Time) []Problem {
	var p problems
	p.subdomain("metadata.name", "policy name", a.Name)
	p.meta(&a.ObjectMeta)
	s := &a.Spec
	word(&p, "spec.effect", s.Effect, EffectAllow, EffectDeny)

	if len(s.Roles) == 0 {
		p.add("spec.roles", "is missing: names of AccessRoles, or \"*\"")
	}
	for i, role := range s.Roles {
		if role != "*" {
			p.label(at("spec.roles", i), "role name", role)
		} else if len(s.Roles) > 1 {
			p.add(at("spec.roles", i), "\"*\" means every role; the others are then superfluous")
		}
	}
	distinct(&p, "spec.roles", s.Roles)
	a.validateClusters(&p)

	if len(s.Rules) == 0 {
		p.add("spec.rules", "is missing: a policy without rules says nothing")
	}
	for i := range s.Rules {
		s.Rules[i].validate(&p, at("spec.rules", i))
	}
	s.Enforcement.validate(&p, "spec.enforcement", now)
	return p
}

func (a *AccessPolicy) validateClusters(p *problems) {
	s := &a.Spec
	switch {
	case len(s.Clusters) == 0 && s.ClusterSelector == nil:
		p.add("spec.clusters", "is missing: names of TargetClusters, \"*\", or a clusterSelector")
	case len(s.Clusters) > 0 && s.ClusterSelector != nil:
		p.add("spec.clusterSelector", "exactly one of clusters and clusterSelector may be set")
	}
	for i, cluster := range s.Clusters {
		p.glob(at("spec.clusters", i), "cluster name", cluster, "abcdefghijklmnopqrstuvwxyz0123456789-")
	}
	distinct(p, "spec.clusters", s.Clusters)
	if sel := s.ClusterSelector; sel != nil {
		if len(sel.MatchLabels) == 0 && len(sel.MatchExpressions) == 0 {
			p.add("spec.clusterSelector", "is empty and would select every cluster; write clusters: [\"*\"] if that is meant")
		} else if _, err := metav1.LabelSelectorAsSelector(sel); err != nil {
			p.add("spec.clusterSelector", "%v", err)
		}
	}
}

// Verbs that requests can have. RBAC's bind, escalate and the like are no
// verbs of requests and could never match.
var (
	resourceVerbs    = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"}
	nonResourceVerbs = []string{"get", "post", "put", "patch", "delete", "options"}
)

func (r *PolicyRule) validate(p *problems, field string) {
	known := resourceVerbs
	switch {
	case len(r.Resources) == 0 && len(r.NonResourceURLs) == 0:
		p.add(field, "has neither resources nor nonResourceURLs")
	case len(r.NonResourceURLs) > 0:
		known = nonResourceVerbs
		if len(r.Resources) > 0 || len(r.APIGroups) > 0 || len(r.Namespaces) > 0 || len(r.ResourceNames) > 0 {
			p.add(field+".nonResourceURLs", "do not go together with apiGroups, resources, namespaces or resourceNames; write two rules")
		}
	case len(r.APIGroups) == 0:
		p.add(field+".apiGroups", "is missing: resources belong to groups; the core group (pods, services, secrets) is \"\"")
	}
	if len(r.Verbs) == 0 {
		p.add(field+".verbs", "is missing: some of %s, or \"*\"", list(known))
	}
	for i, verb := range r.Verbs {
		p.verb(at(field+".verbs", i), verb, known)
	}
	for i, group := range r.APIGroups {
		p.apiGroup(at(field+".apiGroups", i), group)
	}
	for i, resource := range r.Resources {
		p.resource(at(field+".resources", i), resource)
	}
	for i, namespace := range r.Namespaces {
		p.glob(at(field+".namespaces", i), "namespace", namespace, "abcdefghijklmnopqrstuvwxyz0123456789-")
	}
	for i, name := range r.ResourceNames {
		if name == "" || strings.ContainsAny(name, "/%") {
			p.add(at(field+".resourceNames", i), "%q is no name of an object", clip(name))
		} else {
			p.text(at(field+".resourceNames", i), name, 253)
		}
	}
	for i, path := range r.NonResourceURLs {
		if path != "*" && !strings.HasPrefix(path, "/") {
			p.add(at(field+".nonResourceURLs", i), "%q is no path: it begins with \"/\", or is \"*\"", clip(path))
		} else {
			p.text(at(field+".nonResourceURLs", i), path, 1024)
		}
	}
	distinct(p, field+".verbs", r.Verbs)
	distinct(p, field+".apiGroups", r.APIGroups)
	distinct(p, field+".resources", r.Resources)
	distinct(p, field+".namespaces", r.Namespaces)
	distinct(p, field+".resourceNames", r.ResourceNames)
	distinct(p, field+".nonResourceURLs", r.NonResourceURLs)
}

func (p *problems) verb(field, verb string, known []string) {
	switch {
	case verb == "*":
	case strings.Contains(verb, "*"):
		p.add(field, "%q: a verb is written out, or \"*\" alone", clip(verb))
	case verb == "exec" || verb == "attach" || verb == "portforward":
		p.add(field, "%q is a sub-resource: verbs: [create], resources: [pods/%s]", verb, verb)
	default:
		word(p, field, verb, known...)
	}
}

func (p *problems) apiGroup(field, group string) {
	switch {
	case group == "":
	case group == "core" || group == "v1":
		p.hint(field, `""`, "%q: the core group has the empty name", group)
	case strings.Contains(group, "/"):
		name, _, _ := strings.Cut(group, "/")
		p.hint(field, fmt.Sprintf("%q", name), "%q: a group is written without its version", clip(group))
	default:
		p.glob(field, "API group", group, "abcdefghijklmnopqrstuvwxyz0123456789-.")
	}
}

// Sub-resources that people write without their resource.
var wellKnownSubresources = []string{"exec", "attach", "portforward", "log", "ephemeralcontainers", "eviction"}

func (p *problems) resource(field, resource string) {
	name, sub, hasSub := strings.Cut(resource, "/")
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-."
	switch {
	case strings.Contains(sub, "/"):
		p.add(field, "%q has more than one slash: RESOURCE or RESOURCE/SUBRESOURCE", clip(resource))
	case !hasSub && spelling.Nearest(name, wellKnownSubresources) == name && name != "":
		p.hint(field, fmt.Sprintf("%q", "pods/"+name), "%q is a sub-resource and is written behind its resource", name)
	case p.glob(field, "resource", name, letters) && hasSub:
		p.glob(field, "sub-resource", sub, letters)
	}
}

// glob demands letters of the alphabet and "*".
func (p *problems) glob(field, what, value, alphabet string) bool {
	switch {
	case value == "":
		p.add(field, "the %s is empty", what)
	case len(value) > 253:
		p.add(field, "is %d bytes long, no %s is", len(value), what)
	case strings.Trim(value, alphabet+"*") == "":
		return true
	case strings.Trim(strings.ToLower(value), alphabet+"*") == "":
		p.hint(field, fmt.Sprintf("%q", strings.ToLower(value)), "%q is no %s: lower-case letters only", clip(value), what)
	default:
		p.add(field, "%q is no %s", clip(value), what)
	}
	return false
}
