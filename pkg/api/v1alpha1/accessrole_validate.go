package v1alpha1

import (
	"strings"
	"time"
)

// Default implements Object. Tier none is not among the defaults.
func (r *AccessRole) Default() {
	if len(r.Spec.Device.Tiers) == 0 {
		r.Spec.Device.Tiers = []DeviceTier{TierHardwareAttested, TierHardware, TierSoftware}
	}
}

// Validate implements Object. A role that nobody can hold is no problem: people
// empty a role before they delete it.
func (r *AccessRole) Validate(time.Time) []Problem {
	var p problems
	p.label("metadata.name", "role name", r.Name)
	p.meta(&r.ObjectMeta)
	for i, user := range r.Spec.Users {
		if user != "*" {
			p.person(at("spec.users", i), "user", user)
		} else if len(r.Spec.Users) > 1 {
			p.add(at("spec.users", i), "\"*\" means every authenticated person; the others are then superfluous")
		}
	}
	for i, group := range r.Spec.Groups {
		p.person(at("spec.groups", i), "group", group)
	}
	distinct(&p, "spec.users", r.Spec.Users)
	distinct(&p, "spec.groups", r.Spec.Groups)

	d := &r.Spec.Device
	for i, tier := range d.Tiers {
		word(&p, at("spec.device.tiers", i), tier, TierHardwareAttested, TierHardware, TierSoftware, TierNone)
	}
	for i, ownership := range d.Ownership {
		word(&p, at("spec.device.ownership", i), ownership, OwnershipCorporate, OwnershipPersonal)
	}
	for i, platform := range d.Platforms {
		if lower := strings.ToLower(platform); lower == "macos" || lower == "mac" || lower == "osx" {
			p.hint(at("spec.device.platforms", i), `"darwin"`, "%q: platforms have the names that Go gives them", platform)
			continue
		}
		word(&p, at("spec.device.platforms", i), platform, "linux", "darwin", "windows")
	}
	distinct(&p, "spec.device.tiers", d.Tiers)
	distinct(&p, "spec.device.ownership", d.Ownership)
	distinct(&p, "spec.device.platforms", d.Platforms)
	return p
}
