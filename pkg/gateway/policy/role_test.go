package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestRoles(t *testing.T) {
	t.Parallel()
	laptop := wire.Device{ID: "d", Tier: "software", Ownership: "personal", Platform: "linux"}
	with := func(edit func(*wire.Device)) wire.Device { d := laptop; edit(&d); return d }
	alice := Subject{User: wire.User{Issuer: "i", Subject: "s", Name: "alice"}, Groups: []string{"employees"}, Device: laptop}
	device := func(s v1alpha1.DeviceSelector) func(*v1alpha1.AccessRoleSpec) {
		return func(r *v1alpha1.AccessRoleSpec) { r.Groups, r.Device = []string{"employees"}, s }
	}
	c := world{roles: []*v1alpha1.AccessRole{
		accessRole("nobody", func(r *v1alpha1.AccessRoleSpec) { r.Groups = nil }),
		accessRole("everybody", func(r *v1alpha1.AccessRoleSpec) { r.Groups, r.Users = nil, []string{"*"} }),
		accessRole("alice", func(r *v1alpha1.AccessRoleSpec) { r.Groups, r.Users = nil, []string{"alice"} }),
		accessRole("employees"),
		accessRole("either", func(r *v1alpha1.AccessRoleSpec) {
			r.Groups, r.Users = []string{"employees"}, []string{"carol"}
		}),
		accessRole("bare", device(v1alpha1.DeviceSelector{Tiers: []v1alpha1.DeviceTier{v1alpha1.TierNone}})),
		accessRole("hard", device(v1alpha1.DeviceSelector{Tiers: []v1alpha1.DeviceTier{v1alpha1.TierHardware, v1alpha1.TierHardwareAttested}})),
		accessRole("corporate", device(v1alpha1.DeviceSelector{Ownership: []v1alpha1.DeviceOwnership{v1alpha1.OwnershipCorporate}})),
		accessRole("mac", device(v1alpha1.DeviceSelector{Platforms: []string{"darwin"}})),
		accessRole("approved", device(v1alpha1.DeviceSelector{Approved: true})),
	}}.compile(t)
	tests := []struct {
		name string
		in   Subject
		want string
	}{
		{"alice", alice, "alice either employees everybody"},
		{"carol by name", Subject{User: wire.User{Name: "carol"}, Device: laptop}, "either everybody"},
		{"a stranger", Subject{User: wire.User{Name: "eve"}, Groups: []string{"Employees", "employees "}, Device: laptop}, "everybody"},
		{"nobody", Subject{Groups: []string{"employees"}, Device: laptop}, ""},
		{"the name of a group is no user", Subject{User: wire.User{Name: "employees"}, Device: laptop}, "everybody"},
		{"no device", Subject{User: alice.User, Groups: alice.Groups, Device: wire.Device{}}, "bare"},
		{"tier none", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) { d.Tier = "none" })}, "bare"},
		{"an unknown tier", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) { d.Tier = "tpm" })}, ""},
		{"hardware", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) { d.Tier = "hardware" })}, "alice either employees everybody hard"},
		{"a corporate, approved mac", Subject{User: alice.User, Groups: alice.Groups, Device: with(func(d *wire.Device) {
			d.Ownership, d.Platform, d.Approved = "corporate", "darwin", true
		})}, "alice approved corporate either employees everybody mac"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, r := range c.Roles(tt.in) {
				got = append(got, string(r))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
