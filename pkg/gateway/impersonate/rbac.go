package impersonate

import (
	"cmp"
	"path"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// Names of the gateway's account for the upstream leg.
const (
	Namespace = "zt-system"
	Account   = "zt-impersonate"
)

const (
	authentication = "authentication.k8s.io"
	authorization  = "authorization.k8s.io"

	legacyVerb = "impersonate"
	// KEP-5284's mode for people; there are others for nodes and service
	// accounts, which zt never impersonates.
	identityVerb = "impersonate:user-info"
	actionVerb   = "impersonate-on:user-info:"
)

// Needs are what the account must be able to do in one cluster.
type Needs struct {
	Profile v1alpha1.ImpersonationProfile
	// Roles that may be sent as groups.
	Roles []wire.Role
	// Policies that concern the cluster; only what they allow counts.
	Policies []*v1alpha1.AccessPolicy
	// Permissive is set while requests that no policy covers may pass: then the
	// policies do not bound what the account must do.
	Permissive bool
	// ExtraKeys that further issuers' claims are mapped to.
	ExtraKeys []string
}

// NeedsOf gathers them out of the objects of one state.
func NeedsOf(cluster *v1alpha1.TargetCluster, roles []wire.Role, policies []*v1alpha1.AccessPolicy) Needs {
	n := Needs{Profile: cluster.Spec.Impersonation, Roles: roles}
	if n.Profile == "" {
		n.Profile = v1alpha1.ImpersonationConstrained
	}
	n.Permissive = cluster.Spec.Enforcement.Mode == v1alpha1.EnforcementPermissive
	for _, p := range policies {
		if concerns(p, cluster) {
			n.Policies = append(n.Policies, p)
			n.Permissive = n.Permissive || p.Spec.Enforcement.Mode == v1alpha1.EnforcementPermissive
		}
	}
	return n
}

// Rules are the account's whole rights: sorted, without repetition, and never
// with the verb "*", which would hold the legacy verb.
func (n Needs) Rules() []rbacv1.PolicyRule {
	legacy := n.Profile == v1alpha1.ImpersonationLegacy
	verb, group := identityVerb, authentication
	if legacy {
		verb, group = legacyVerb, ""
	}
	rules := []rbacv1.PolicyRule{
		{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{"users"}},
		{Verbs: []string{verb}, APIGroups: []string{authentication}, Resources: []string{"uids"}},
		{Verbs: []string{verb}, APIGroups: []string{authentication}, Resources: n.extras()},
	}
	if groups := n.groups(); len(groups) > 0 {
		// Without resourceNames this would be every group there is.
		rules = append(rules, rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{"groups"}, ResourceNames: groups})
	}
	if legacy {
		return rules
	}
	return append(rules, n.actions()...)
}

func (n Needs) groups() []string {
	var groups []string
	for _, role := range n.Roles {
		groups = append(groups, GroupPrefix+string(role))
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

func (n Needs) extras() []string {
	resources := []string{"userextras/" + wire.ExtraDevice, "userextras/" + wire.ExtraSession, "userextras/" + wire.ExtraClientIP}
	for _, key := range n.ExtraKeys {
		resources = append(resources, "userextras/"+key)
	}
	slices.Sort(resources)
	return slices.Compact(resources)
}

// standardVerbs are those of Kubernetes' API for resources. "*" in a policy means
// these.
var standardVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// urlVerbs are those of URLs that are no resources: HTTP's methods, of which the
// gateway accepts these.
var urlVerbs = []string{"delete", "get", "head", "patch", "post", "put"}

// everybody may look around and ask about himself; policy allows discovery to
// every role, and the reviews where a policy says so.
var everybody = []rbacv1.PolicyRule{
	{Verbs: []string{"get", "head"}, NonResourceURLs: []string{"/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/"}},
	{Verbs: []string{"create"}, APIGroups: []string{authentication}, Resources: []string{"selfsubjectreviews"}},
	{Verbs: []string{"create"}, APIGroups: []string{authorization}, Resources: []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"}},
}

// actions are the impersonate-on rules: what may be done in somebody's name.
func (n Needs) actions() []rbacv1.PolicyRule {
	wanted := slices.Clone(everybody)
	if n.Permissive {
		wanted = append(wanted,
			rbacv1.PolicyRule{Verbs: standardVerbs, APIGroups: []string{"*"}, Resources: []string{"*"}},
			rbacv1.PolicyRule{Verbs: urlVerbs, NonResourceURLs: []string{"*"}})
	}
	for _, p := range n.Policies {
		if p.Spec.Effect == v1alpha1.EffectDeny {
			continue
		}
		for _, rule := range p.Spec.Rules {
			wanted = append(wanted, widen(rule)...)
		}
	}
	for i := range wanted {
		verbs := make([]string, len(wanted[i].Verbs))
		for j, verb := range wanted[i].Verbs {
			verbs[j] = actionVerb + verb
		}
		wanted[i].Verbs = verbs
	}
	slices.SortFunc(wanted, func(a, b rbacv1.PolicyRule) int { return cmp.Compare(key(a), key(b)) })
	return slices.CompactFunc(wanted, func(a, b rbacv1.PolicyRule) bool { return key(a) == key(b) })
}

func key(r rbacv1.PolicyRule) string {
	join := func(s []string) string { return strings.Join(s, ",") }
	return join(r.NonResourceURLs) + "|" + join(r.APIGroups) + "|" + join(r.Resources) + "|" + join(r.Verbs)
}

// widen turns one rule of a policy into rules of RBAC that cover it. RBAC knows
// fewer patterns and is the outer net here, so where it cannot say the same it
// says more. Names and namespaces stay with the policy.
func widen(rule v1alpha1.PolicyRule) []rbacv1.PolicyRule {
	verbs := matching(rule.Verbs, standardVerbs)
	var out []rbacv1.PolicyRule
	if verbs := verbsOfURLs(rule.Verbs); len(rule.NonResourceURLs) > 0 && len(verbs) > 0 {
		var urls []string
		for _, url := range rule.NonResourceURLs {
			if before, _, glob := strings.Cut(url, "*"); glob {
				url = before + "*"
			}
			urls = append(urls, url)
		}
		out = append(out, rbacv1.PolicyRule{Verbs: verbs, NonResourceURLs: sorted(urls)})
	}
	var groups, plain, streams, proxies []string
	for _, group := range rule.APIGroups {
		if strings.Contains(group, "*") {
			group = "*"
		}
		groups = append(groups, group)
	}
	for _, resource := range rule.Resources {
		for _, resource := range widenResource(resource) {
			switch _, sub, _ := strings.Cut(resource, "/"); {
			case sub == "exec", sub == "attach", sub == "portforward":
				streams = append(streams, resource)
			case sub == "proxy":
				proxies = append(proxies, resource)
			default:
				plain = append(plain, resource)
			}
		}
	}
	add := func(resources, verbs []string) {
		if len(resources) > 0 && len(verbs) > 0 && len(groups) > 0 {
			out = append(out, rbacv1.PolicyRule{Verbs: sorted(verbs), APIGroups: sorted(groups), Resources: sorted(resources)})
		}
	}
	add(plain, verbs)
	// A policy's "create" on a stream is whatever method opens it, and through a
	// proxy any method goes.
	if slices.Contains(verbs, "create") {
		add(streams, []string{"create", "get"})
		add(proxies, []string{"create", "delete", "get", "patch", "update"})
	}
	return out
}

// verbsOfURLs are those that a policy's verbs mean for URLs. Who may get may also
// ask for the header alone.
func verbsOfURLs(patterns []string) []string {
	verbs := slices.DeleteFunc(matching(patterns, urlVerbs), func(verb string) bool { return !slices.Contains(urlVerbs, verb) })
	if slices.Contains(verbs, "get") {
		verbs = append(verbs, "head")
	}
	return sorted(verbs)
}

// matching expands globs among verbs over known ones and keeps the rest.
func matching(patterns, known []string) []string {
	var verbs []string
	for _, pattern := range patterns {
		if !strings.Contains(pattern, "*") {
			verbs = append(verbs, pattern)
			continue
		}
		for _, verb := range known {
			if ok, err := path.Match(pattern, verb); ok && err == nil {
				verbs = append(verbs, verb)
			}
		}
	}
	return sorted(verbs)
}

// subresources of those resources where "x/*" is worth spelling out.
var subresources = map[string][]string{
	"pods":     {"attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize", "status"},
	"services": {"proxy", "status"},
	"nodes":    {"proxy", "status"},
}

// widenResource says one pattern of a policy in RBAC's terms, where "*" holds
// the sub-resources too; streams and proxies stand apart for their verbs' sake.
func widenResource(pattern string) []string {
	resource, sub, has := strings.Cut(pattern, "/")
	switch {
	case !strings.Contains(pattern, "*"), pattern == "*":
		return []string{pattern}
	case has && resource == "*" && !strings.Contains(sub, "*"):
		return []string{pattern} // RBAC's own form
	case has && sub == "*" && subresources[resource] != nil:
		var all []string
		for _, sub := range subresources[resource] {
			all = append(all, resource+"/"+sub)
		}
		return all
	case has:
		return []string{"*", "*/attach", "*/exec", "*/portforward", "*/proxy"}
	default:
		return []string{"*"}
	}
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

// concerns reports whether policy p names cluster c.
func concerns(p *v1alpha1.AccessPolicy, c *v1alpha1.TargetCluster) bool {
	for _, pattern := range p.Spec.Clusters {
		if ok, err := path.Match(pattern, c.Name); pattern == "*" || ok && err == nil {
			return true
		}
	}
	if p.Spec.ClusterSelector == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(p.Spec.ClusterSelector)
	return err == nil && selector.Matches(labels.Set(c.Labels))
}

// Missing names the first right among needed that actual does not hold, empty
// when there is none. "Verb resource" reads as in RBAC.
func Missing(needed, actual []rbacv1.PolicyRule) string {
	for _, n := range needed {
		for _, verb := range n.Verbs {
			for _, url := range n.NonResourceURLs {
				if !slices.ContainsFunc(actual, func(a rbacv1.PolicyRule) bool {
					return slices.Contains(a.Verbs, verb) && slices.ContainsFunc(a.NonResourceURLs, func(have string) bool { return covers(have, url) })
				}) {
					return verb + " " + url
				}
			}
			for _, group := range n.APIGroups {
				for _, resource := range n.Resources {
					for _, name := range orAny(n.ResourceNames) {
						if !slices.ContainsFunc(actual, func(a rbacv1.PolicyRule) bool { return holds(a, verb, group, resource, name) }) {
							return strings.TrimSpace(verb + " " + strings.Trim(group+"/"+resource, "/") + " " + name)
						}
					}
				}
			}
		}
	}
	return ""
}

func orAny(names []string) []string {
	if len(names) == 0 {
		return []string{""}
	}
	return names
}

func covers(have, want string) bool {
	return have == want || strings.HasSuffix(have, "*") && strings.HasPrefix(want, strings.TrimSuffix(have, "*"))
}

func holds(a rbacv1.PolicyRule, verb, group, resource, name string) bool {
	_, sub, has := strings.Cut(resource, "/")
	return slices.Contains(a.Verbs, verb) &&
		(slices.Contains(a.APIGroups, group) || slices.Contains(a.APIGroups, "*")) &&
		(slices.Contains(a.Resources, resource) || slices.Contains(a.Resources, "*") || has && slices.Contains(a.Resources, "*/"+sub)) &&
		(len(a.ResourceNames) == 0 || name != "" && slices.Contains(a.ResourceNames, name))
}
