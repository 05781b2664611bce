package policy

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/kube-zt/zt/pkg/wire"
)

// Texts are made only on the way to a refusal, where time does not matter.

const hintRoles = "kubectl zt clusters shows your roles"

// unknownCluster is the same, letter by letter, for a cluster that does not
// exist and for one that must not be known.
func (d Decision) unknownCluster(in *Input) Decision {
	d.Allowed, d.WouldDeny, d.Policy, d.Rule = false, false, "", -1
	d.Reason = wire.ReasonClusterUnknown
	d.Message = fmt.Sprintf("cluster %q does not exist, or none of your roles may use it", in.Cluster)
	d.Hint = "kubectl zt clusters lists yours"
	return d
}

func (d Decision) clusterDisabled(in *Input) Decision {
	d.Reason, d.Policy = wire.ReasonClusterDisabled, BuiltinPolicy
	d.Message = fmt.Sprintf("cluster %q is disabled by its administrators", in.Cluster)
	d.Hint = "kubectl zt clusters shows when it is enabled again"
	return d
}

func (d Decision) builtin(q *query, in *Input, r refused) Decision {
	d.Reason, d.Policy = wire.ReasonBuiltinDenied, BuiltinPolicy
	d.Message = fmt.Sprintf("you may not %s: %s", q.what(in), r.why)
	d.Hint = fmt.Sprintf("only role %s may; %s", AdminRole, cmp.Or(r.hint, hintRoles))
	return d
}

func (d Decision) kubeletUnlisted(q *query, in *Input) Decision {
	d.Reason, d.Policy = wire.ReasonBuiltinDenied, BuiltinPolicy
	d.Message = fmt.Sprintf("you may not %s: it reaches every pod of the node, so a policy must list nodes/proxy by name", q.what(in))
	d.Hint = hintRoles
	return d
}

func (d Decision) denied(p *policy, i int, q *query, in *Input) Decision {
	d.Reason, d.Policy, d.Rule = wire.ReasonPolicyDenied, p.name, i
	d.Message = fmt.Sprintf("policy %s denies %s", p.name, q.what(in))
	d.Hint = hintRoles
	source := &p.source.Spec.Rules[i]
	switch r := &p.rules[i]; {
	case q.resource && q.namespace == "" && r.namespaces != nil:
		d.Message += fmt.Sprintf(", since it denies this in namespace %s and all namespaces include it", some(source.Namespaces))
		d.Hint = "name another namespace with -n"
	case q.resource && q.name == "" && r.names != nil:
		d.Message += fmt.Sprintf(", since it denies this for %s and the request does not say for which object it is", some(source.ResourceNames))
		if q.collection {
			d.Hint = "ask for one object by its name"
		}
	}
	return d
}

func (c *Compiled) byDefault(d Decision, t *cluster, h *holder, q *query, in *Input) Decision {
	d.Reason = wire.ReasonPolicyDefault
	d.Hint = hintRoles
	roles := c.names(h)
	switch {
	case len(t.allow) == 0:
		d.Message = fmt.Sprintf("no policy covers cluster %q, so nobody may %s", in.Cluster, q.what(in))
		return d
	case len(roles) == 0:
		d.Message = fmt.Sprintf("you hold no role, so you may not %s", q.what(in))
		return d
	case len(roles) == 1:
		d.Message = fmt.Sprintf("no policy lets role %s %s", roles[0], q.what(in))
	default:
		d.Message = fmt.Sprintf("no policy lets roles %s %s", some(roles), q.what(in))
	}
	if near := c.nearest(t, h, q); near != "" {
		d.Message += "; " + near
	}
	return d
}

// nearest finds the rule that misses the request by one thing and says by which.
func (c *Compiled) nearest(t *cluster, h *holder, q *query) string {
	if !q.resource || q.kubelet() {
		return ""
	}
	for _, p := range t.allow {
		if !p.appliesTo(h, c.words, false) {
			continue
		}
		for i := range p.rules {
			if text := p.almost(i, q); text != "" {
				return "policy " + p.name + " allows " + text
			}
		}
	}
	return ""
}

// almost says what rule i allows when all but one of its conditions hold.
func (p *policy) almost(i int, q *query) string {
	r, source := &p.rules[i], &p.source.Spec.Rules[i]
	if len(r.resources) == 0 {
		return ""
	}
	verb := r.verbs&q.bit != 0
	resource := r.groups.match(q.group) && r.matchResource(q)
	namespace, name := r.coversNamespace(q), r.coversName(q)
	switch {
	case !verb && resource && namespace && name:
		return some(source.Verbs) + " of it"
	case verb && !resource && namespace && name:
		return "it for " + some(source.Resources)
	case verb && resource && !namespace && name:
		return "it in namespace " + some(source.Namespaces) + " only"
	case verb && resource && namespace && !name:
		return "it for the name " + some(source.ResourceNames) + " only"
	}
	return ""
}

func (c *Compiled) names(h *holder) []string {
	var names []string
	for i := range c.roles {
		if h.set[i/64]&(1<<(i%64)) != 0 {
			names = append(names, string(c.roles[i].name))
		}
	}
	return names
}

// what says the request as a person would: get pods "a" in namespace "b".
func (q *query) what(in *Input) string {
	if !q.resource {
		return fmt.Sprintf("%s %s on cluster %q", q.verb, q.path, in.Cluster)
	}
	var b strings.Builder
	b.WriteString(q.verb + " " + q.res)
	if q.group != "" {
		b.WriteString("." + q.group)
	}
	if q.sub != "" {
		b.WriteString("/" + q.sub)
	}
	if q.name != "" {
		fmt.Fprintf(&b, " %q", q.name)
	}
	switch {
	case q.namespace != "":
		fmt.Fprintf(&b, " in namespace %q", q.namespace)
	case q.collection && !clusterScoped(q.group, q.res):
		b.WriteString(" in all namespaces")
	}
	fmt.Fprintf(&b, " on cluster %q", in.Cluster)
	return b.String()
}

// some joins the first few words, so that no refusal becomes a book.
func some(words []string) string {
	const most = 6
	if len(words) > most {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", len(words)-most)
	}
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
