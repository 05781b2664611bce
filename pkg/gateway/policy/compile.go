package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kube-zt/zt/pkg/api/spelling"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// Compiled is one version of the configuration, indexed for decisions.
type Compiled struct {
	version  string
	roles    []role
	index    map[wire.Role]int
	words    int // of a roleSet that are in use
	clusters map[wire.ClusterName]*cluster
}

// cluster is a TargetCluster with the policies that speak of it, by name.
type cluster struct {
	disabled    bool
	soft        time.Time // zero: enforcing
	deny, allow []*policy
	denies      index
	allows      index
}

// policy is a compiled AccessPolicy.
type policy struct {
	name string
	// anybody: roles is "*". An Allow then still wants some role; a Deny does not.
	anybody bool
	roles   roleSet
	soft    time.Time
	rules   []rule
	source  *v1alpha1.AccessPolicy
}

// Problem is an error between objects: one names another that is not there.
type Problem struct {
	Kind, Name string // of the object at fault
	Field      string
	Message    string
	Hint       string
}

func (p *Problem) Error() string {
	text := fmt.Sprintf("%s %s: %s: %s", p.Kind, p.Name, p.Field, p.Message)
	if p.Hint != "" {
		text += " (did you mean " + p.Hint + "?)"
	}
	return text
}

// Compile indexes objects that were defaulted and validated before. Its errors
// are *Problem; with any, the Compiled is nil.
func Compile(version string, clusters []*v1alpha1.TargetCluster, roles []*v1alpha1.AccessRole, policies []*v1alpha1.AccessPolicy) (*Compiled, []error) {
	c := &Compiled{
		version:  version,
		index:    make(map[wire.Role]int, len(roles)),
		clusters: make(map[wire.ClusterName]*cluster, len(clusters)),
		words:    (len(roles) + 63) / 64,
	}
	if len(roles) > maxRoles {
		return nil, []error{&Problem{
			Kind: "AccessRole", Name: roles[maxRoles].Name, Field: "metadata.name",
			Message: fmt.Sprintf("is one of %d roles; at most %d are allowed", len(roles), maxRoles),
		}}
	}
	for _, r := range slices.SortedFunc(slices.Values(roles), byName) {
		c.index[wire.Role(r.Name)] = len(c.roles)
		c.roles = append(c.roles, compileRole(r))
	}
	for _, t := range clusters {
		c.clusters[wire.ClusterName(t.Name)] = &cluster{
			disabled: t.Spec.Access == v1alpha1.AccessDisabled,
			soft:     softUntil(t.Spec.Enforcement),
		}
	}
	var errs []error
	for _, in := range slices.SortedFunc(slices.Values(policies), byName) {
		p, problems := c.compilePolicy(in)
		targets, more := c.targets(in, clusters)
		errs = append(append(errs, problems...), more...)
		for _, t := range targets {
			if in.Spec.Effect == v1alpha1.EffectDeny {
				t.deny = append(t.deny, p)
				t.denies.add(p)
			} else {
				t.allow = append(t.allow, p)
				t.allows.add(p)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}

func (c *Compiled) compilePolicy(in *v1alpha1.AccessPolicy) (*policy, []error) {
	p := &policy{name: in.Name, soft: softUntil(in.Spec.Enforcement), source: in}
	var errs []error
	for i, name := range in.Spec.Roles {
		if name == "*" {
			p.anybody = true
			continue
		}
		index, ok := c.index[wire.Role(name)]
		if !ok {
			errs = append(errs, unknown(in, fmt.Sprintf("spec.roles[%d]", i), "AccessRole", name, slices.Sorted(maps.Keys(c.index))))
			continue
		}
		p.roles.add(index)
	}
	for i := range in.Spec.Rules {
		p.rules = append(p.rules, compileRule(&in.Spec.Rules[i]))
	}
	return p, errs
}

// targets are the clusters that a policy names.
func (c *Compiled) targets(in *v1alpha1.AccessPolicy, clusters []*v1alpha1.TargetCluster) (found []*cluster, errs []error) {
	selector := labels.Nothing()
	if in.Spec.ClusterSelector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(in.Spec.ClusterSelector); err != nil {
			errs = append(errs, &Problem{Kind: "AccessPolicy", Name: in.Name, Field: "spec.clusterSelector", Message: err.Error()})
		}
	}
	names := compilePatterns(in.Spec.Clusters)
	for _, t := range clusters {
		if names.match(t.Name) || selector.Matches(labels.Set(t.Labels)) {
			found = append(found, c.clusters[wire.ClusterName(t.Name)])
		}
	}
	for i, name := range in.Spec.Clusters {
		// A glob may match nothing yet; a name that does not exist is a slip.
		if _, ok := c.clusters[wire.ClusterName(name)]; !ok && names[i].exact {
			errs = append(errs, unknown(in, fmt.Sprintf("spec.clusters[%d]", i), "TargetCluster", name, slices.Sorted(maps.Keys(c.clusters))))
		}
	}
	return found, errs
}

func unknown[S ~string](in *v1alpha1.AccessPolicy, field, kind, name string, known []S) *Problem {
	p := &Problem{Kind: "AccessPolicy", Name: in.Name, Field: field, Message: fmt.Sprintf("there is no %s %q", kind, name)}
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	if near := spelling.Nearest(name, words); near != "" {
		p.Hint = strconv.Quote(near)
	} else if len(words) > 0 && len(words) <= 12 {
		p.Message += "; there are " + strings.Join(words, ", ")
	}
	return p
}

func softUntil(e v1alpha1.Enforcement) time.Time {
	if e.Mode != v1alpha1.EnforcementPermissive || e.Until == nil {
		return time.Time{}
	}
	return e.Until.Time
}

func byName[O metav1.Object](a, b O) int { return cmp.Compare(a.GetName(), b.GetName()) }

// Version names the configuration that was compiled.
func (c *Compiled) Version() string { return c.version }

// Roles are the roles that s holds, sorted by name.
func (c *Compiled) Roles(s Subject) []wire.Role {
	var held []wire.Role
	for i := range c.roles {
		if c.roles[i].holds(&s) {
			held = append(held, c.roles[i].name)
		}
	}
	return held
}

// Visible reports whether somebody with these roles may know the cluster: an
// Allow names it for one of them, or it is Permissive, or they are zt's admins.
func (c *Compiled) Visible(name wire.ClusterName, roles []wire.Role, now time.Time) bool {
	t, ok := c.clusters[name]
	if !ok {
		return false
	}
	var held holder
	c.hold(&held, roles)
	return c.visible(t, &held, now)
}

// Coverage says how a cluster is enforced: "no policy", "Enforcing" or
// "Permissive until …".
func (c *Compiled) Coverage(name wire.ClusterName, now time.Time) string {
	t, ok := c.clusters[name]
	if !ok {
		return "no policy"
	}
	until := t.soft
	for _, p := range slices.Concat(t.deny, t.allow) {
		if p.soft.After(until) {
			until = p.soft
		}
	}
	switch {
	case soft(until, now):
		return "Permissive until " + until.UTC().Format(time.RFC3339)
	case len(t.allow)+len(t.deny) == 0:
		return "no policy"
	default:
		return "Enforcing"
	}
}
