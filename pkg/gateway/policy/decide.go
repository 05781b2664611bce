package policy

import (
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// holder is what somebody's roles amount to in this version. Roles that the
// configuration no longer knows count for nothing.
type holder struct {
	set   roleSet
	any   bool
	admin bool
}

func (c *Compiled) hold(h *holder, roles []wire.Role) {
	for _, r := range roles {
		i, ok := c.index[r]
		if !ok {
			continue
		}
		h.set.add(i)
		h.any = true
		h.admin = h.admin || r == AdminRole
	}
}

// soft reports whether Permissive is in force. A caller that forgot the time
// gets none.
func soft(until, now time.Time) bool { return until.After(now) && !now.IsZero() }

// appliesTo: an Allow for "*" wants some role, a Deny for "*" wants none.
func (p *policy) appliesTo(h *holder, words int, deny bool) bool {
	if p.anybody {
		return deny || h.any
	}
	return p.roles.meets(&h.set, words)
}

func (c *Compiled) visible(t *cluster, h *holder, now time.Time) bool {
	if h.admin || h.any && soft(t.soft, now) {
		return true
	}
	for _, p := range t.allow {
		if p.appliesTo(h, c.words, false) {
			return true
		}
	}
	return false
}

// Decide judges one request.
//
// The order is the argument: what must not be known is not explained; zt's own
// things are judged before any policy can speak; every Deny is asked before any
// Allow; and only what is left, the default, can be softened.
func (c *Compiled) Decide(in Input) Decision {
	d := Decision{Rule: -1, Version: c.version}
	t, ok := c.clusters[in.Cluster]
	if !ok {
		return d.unknownCluster(&in)
	}
	var h holder
	c.hold(&h, in.Roles)
	q := newQuery(&in)

	refuse := func(d Decision) Decision {
		if !c.visible(t, &h, in.Now) {
			return d.unknownCluster(&in)
		}
		return d
	}
	if t.disabled {
		return refuse(d.clusterDisabled(&in))
	}
	if r := builtinDeny(&q, h.admin); r.why != "" {
		return refuse(d.builtin(&q, &in, r))
	}
	denied := h
	c.hold(&denied, in.DenyRoles)
	a := asked{q: &q, h: &denied, now: in.Now, words: c.words, deny: true}
	if p, i := t.denies.find(&a); p != nil {
		return refuse(d.denied(p, i, &q, &in))
	}

	a.deny, a.h = false, &h
	switch allow, i := t.allows.find(&a); {
	case allow != nil:
		d.Allowed, d.Policy, d.Rule = true, allow.name, i
	case builtinAllow(&q) && c.visible(t, &h, in.Now):
		d.Allowed, d.Policy = true, BuiltinPolicy
	case q.kubelet():
		return refuse(d.kubeletUnlisted(&q, &in))
	default:
		softened, by := c.softened(t, &h, in.Now)
		d = c.byDefault(d, t, &h, &q, &in)
		if !softened {
			return refuse(d)
		}
		d.Allowed, d.WouldDeny, d.Policy = true, true, by
	}
	// A Deny that only Permissive kept from biting is what goes on record.
	a.deny, a.permissive, a.h = true, true, &denied
	if p, i := t.denies.find(&a); p != nil {
		d = d.denied(p, i, &q, &in)
		d.Allowed, d.WouldDeny = true, true
	}
	return d
}

// softened reports whether the default deny is Permissive here, and by which
// policy; the cluster itself has no policy's name. Roles are never softened:
// somebody who holds none gets nothing.
func (c *Compiled) softened(t *cluster, h *holder, now time.Time) (bool, string) {
	if !h.any {
		return false, ""
	}
	if soft(t.soft, now) {
		return true, ""
	}
	for _, p := range t.allow {
		if soft(p.soft, now) && p.appliesTo(h, c.words, false) {
			return true, p.name
		}
	}
	return false, ""
}
