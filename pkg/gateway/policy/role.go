package policy

import (
	"slices"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// maxRoles bounds the roles of one configuration, so that a person's roles are
// a value on the stack.
const maxRoles = 1024

// roleSet is a set of indices into Compiled.roles.
type roleSet [maxRoles / 64]uint64

func (s *roleSet) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s *roleSet) meets(o *roleSet, words int) bool {
	for i := range words {
		if s[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// role is a compiled AccessRole.
type role struct {
	name      wire.Role
	everybody bool
	users     map[string]bool
	groups    map[string]bool
	device    v1alpha1.DeviceSelector
}

func compileRole(in *v1alpha1.AccessRole) role {
	r := role{name: wire.Role(in.Name), users: map[string]bool{}, groups: map[string]bool{}, device: in.Spec.Device}
	for _, user := range in.Spec.Users {
		if user == "*" {
			r.everybody = true
		} else {
			r.users[user] = true
		}
	}
	for _, group := range in.Spec.Groups {
		r.groups[group] = true
	}
	if len(r.device.Tiers) == 0 {
		r.device.Tiers = []v1alpha1.DeviceTier{v1alpha1.TierHardwareAttested, v1alpha1.TierHardware, v1alpha1.TierSoftware}
	}
	return r
}

// holds: (users or groups) and device.
func (r *role) holds(s *Subject) bool {
	if !r.person(s) {
		return false
	}
	tier := v1alpha1.DeviceTier(s.Device.Tier)
	if tier == "" {
		tier = v1alpha1.TierNone
	}
	d := &r.device
	return slices.Contains(d.Tiers, tier) &&
		(len(d.Ownership) == 0 || slices.Contains(d.Ownership, v1alpha1.DeviceOwnership(s.Device.Ownership))) &&
		(len(d.Platforms) == 0 || slices.Contains(d.Platforms, s.Device.Platform)) &&
		(!d.Approved || s.Device.Approved)
}

func (r *role) person(s *Subject) bool {
	if s.User.Name == "" {
		return false
	}
	if r.everybody || r.users[string(s.User.Name)] {
		return true
	}
	for _, group := range s.Groups {
		if r.groups[group] {
			return true
		}
	}
	return false
}
