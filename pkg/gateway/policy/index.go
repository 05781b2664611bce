package policy

import "time"

// index finds the rules that may speak of a request without walking through all
// of them: most rules name their resources exactly.
type index struct {
	exact map[resourceKey][]ref
	globs []ref // with a "*" in the resource
	paths []ref // about non-resource URLs
}

type resourceKey struct{ resource, sub string }

// ref is one rule of one policy. The verbs are repeated here because they
// decide most often, without a look at the rule.
type ref struct {
	verbs verbs
	i     int32
	p     *policy
}

func (x *index) add(p *policy) {
	if x.exact == nil {
		x.exact = map[resourceKey][]ref{}
	}
	for i := range p.rules {
		r := &p.rules[i]
		entry := ref{verbs: r.verbs, i: int32(i), p: p}
		if r.paths != nil {
			x.paths = append(x.paths, entry)
		}
		globs := false
		for j := range r.resources {
			rp := &r.resources[j]
			if rp.resource.exact && rp.sub.exact {
				key := resourceKey{rp.resource.head, rp.sub.head}
				x.exact[key] = append(x.exact[key], entry)
			} else {
				globs = true
			}
		}
		if globs {
			x.globs = append(x.globs, entry)
		}
	}
}

// asked is a question to an index.
type asked struct {
	q    *query
	h    *holder
	now  time.Time
	deny bool
	// permissive chooses among Denies: those in force, or those softened now.
	permissive bool
	words      int
}

// find returns the first policy that answers, and by which of its rules.
func (x *index) find(a *asked) (*policy, int) {
	if !a.q.resource {
		return a.first(x.paths, false)
	}
	if p, i := a.first(x.exact[resourceKey{a.q.res, a.q.sub}], false); p != nil {
		return p, i
	}
	return a.first(x.globs, true)
}

func (a *asked) first(refs []ref, glob bool) (*policy, int) {
	for k := range refs {
		e := &refs[k]
		if e.verbs&a.q.bit == 0 || !e.p.appliesTo(a.h, a.words, a.deny) {
			continue
		}
		if a.deny && soft(e.p.soft, a.now) != a.permissive {
			continue
		}
		r := &e.p.rules[e.i]
		if glob && !r.matchResource(a.q) {
			continue
		}
		if a.deny && r.touches(a.q) || !a.deny && r.covers(a.q) {
			return e.p, int(e.i)
		}
	}
	return nil, -1
}
