package revoke

import (
	"fmt"
	"slices"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// denySet is what is revoked at one epoch. It is never changed.
type denySet struct {
	epoch wire.Epoch
	// named by kind, then by value.
	named map[string]map[string]revocation
	// people of revoked names, by issuer and subject: a name can be changed.
	people map[v1alpha1.RevokedPerson]revocation
	// changes are roles taken from one session.
	changes map[wire.SessionID][]change
}

type revocation struct {
	name, reason string
	// unfit: a session that control ended.
	unfit bool
}

// ByControl is RevocationSpec.By of what control does itself. A session that it
// ends, it ends because of the device or the certificate, where administrators
// help and a login does not.
const ByControl = "control"

// change subtracts roles from what was evaluated before its epoch; roles of a
// newer token were evaluated after it and stand.
type change struct {
	revocation
	epoch wire.Epoch
	roles []wire.Role
}

// newDenySet takes every revocation as it is meant to be read: one whose target
// is unclear would be a hole, but the store lets none in (v1alpha1 validation),
// and here it matches nothing.
func newDenySet(revocations []*v1alpha1.Revocation, epoch wire.Epoch) *denySet {
	s := &denySet{epoch: epoch, named: map[string]map[string]revocation{}, people: map[v1alpha1.RevokedPerson]revocation{}, changes: map[wire.SessionID][]change{}}
	for _, r := range revocations {
		kind, value, ok := r.Spec.Target()
		if !ok {
			continue
		}
		entry := revocation{name: r.Name, reason: r.Spec.Reason, unfit: r.Spec.By == ByControl}
		if kind == v1alpha1.RevokedSession && len(r.Spec.Roles) > 0 {
			s.addChange(r, entry)
			continue
		}
		if s.named[kind] == nil {
			s.named[kind] = map[string]revocation{}
		}
		s.named[kind][value] = entry
		for _, person := range r.Status.People {
			s.people[person] = entry
		}
	}
	return s
}

func (s *denySet) addChange(r *v1alpha1.Revocation, entry revocation) {
	c := change{revocation: entry, epoch: s.epoch}
	// Without a readable epoch the newest holds, which subtracts from more.
	if e := new(wire.Epoch); e.UnmarshalText([]byte(r.Status.Epoch)) == nil {
		c.epoch = *e
	}
	for _, role := range r.Spec.Roles {
		c.roles = append(c.roles, wire.Role(role))
	}
	id := wire.SessionID(r.Spec.Session)
	s.changes[id] = append(s.changes[id], c)
}

func (s *denySet) find(kind, value string) (revocation, bool) {
	if value == "" {
		return revocation{}, false
	}
	r, ok := s.named[kind][value]
	return r, ok
}

// check refuses f when it is revoked as a whole.
func (s *denySet) check(f *Facts) *wire.Refusal {
	if len(s.named) == 0 && len(s.changes) == 0 {
		return nil
	}
	if r, ok := s.find(v1alpha1.RevokedUser, string(f.User.Name)); ok {
		return r.refuse(wire.ReasonRevoked, "user %s was revoked", f.User.Name)
	}
	if r, ok := s.people[v1alpha1.RevokedPerson{Issuer: string(f.User.Issuer), Subject: string(f.User.Subject)}]; ok && f.User.Subject != "" {
		return r.refuse(wire.ReasonRevoked, "user %s was revoked", f.User.Name)
	}
	for _, group := range f.Groups {
		if r, ok := s.find(v1alpha1.RevokedGroup, group); ok {
			return r.refuse(wire.ReasonRevoked, "group %s was revoked", group)
		}
	}
	if r, ok := s.find(v1alpha1.RevokedDevice, string(f.Device)); ok {
		return r.refuse(wire.ReasonRevoked, "device %s was revoked", f.Device)
	}
	if r, ok := s.find(v1alpha1.RevokedCertificate, f.Serial); ok {
		return r.refuse(wire.ReasonRevoked, "certificate %s was revoked", f.Serial)
	}
	if r, ok := s.find(v1alpha1.RevokedSession, string(f.Session)); ok {
		if r.unfit {
			return r.refuse(wire.ReasonRevoked, "this session was ended")
		}
		return r.refuse(wire.ReasonSessionEnded, "this session was ended")
	}
	if r, ok := s.find(v1alpha1.RevokedCluster, string(f.Cluster)); ok {
		return r.refuse(wire.ReasonClusterRevoked, "cluster %s was revoked", f.Cluster)
	}
	if removed, r := s.removed(f); len(removed) > 0 && len(removed) == len(f.Roles) {
		return r.refuse(wire.ReasonRoleRevoked, "role %s was revoked, and you hold no other", removed[0])
	}
	return nil
}

// removed are the roles that f loses, and the revocation that took the first.
func (s *denySet) removed(f *Facts) (removed []wire.Role, by revocation) {
	for _, role := range f.Roles {
		r, ok := s.find(v1alpha1.RevokedRole, string(role))
		if !ok && f.Session != "" {
			r, ok = s.changed(f, role)
		}
		if !ok {
			continue
		}
		if len(removed) == 0 {
			by = r
		}
		removed = append(removed, role)
	}
	return removed, by
}

func (s *denySet) changed(f *Facts, role wire.Role) (revocation, bool) {
	for i := range s.changes[f.Session] {
		c := &s.changes[f.Session][i]
		if f.Epoch.Less(c.epoch) && slices.Contains(c.roles, role) {
			return c.revocation, true
		}
	}
	return revocation{}, false
}

// cut says why something that lives must end: it is revoked, or it runs upstream
// with a role that is gone.
func (s *denySet) cut(f *Facts) *wire.Refusal {
	if refusal := s.check(f); refusal != nil {
		return refusal
	}
	if removed, r := s.removed(f); len(removed) > 0 {
		return r.refuse(wire.ReasonRoleRevoked, "role %s was revoked", removed[0])
	}
	return nil
}

func (r revocation) refuse(reason wire.Reason, format string, args ...any) *wire.Refusal {
	hint := "ask the administrators of zt"
	if reason == wire.ReasonSessionEnded {
		hint = "kubectl zt login"
	}
	message := fmt.Sprintf(format, args...)
	if r.reason != "" {
		message += ": " + r.reason
	}
	return &wire.Refusal{Reason: reason, Message: message, Hint: hint, Policy: r.name}
}
