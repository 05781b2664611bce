package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AccessRole says who on what device holds a role. Toward Kubernetes the role
// is the group zt:NAME. Control evaluates it when it issues a token.
type AccessRole struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              AccessRoleSpec `json:"spec"`
}

// AccessRoleSpec: (Users OR Groups) AND Device. A role with neither users nor
// groups is held by nobody. "*" in Users means every authenticated person.
type AccessRoleSpec struct {
	// Users are names as the issuer's username claim gives them, no prefix.
	Users []string `json:"users,omitempty"`
	// Groups are values of the issuer's groups claim.
	Groups []string       `json:"groups,omitempty"`
	Device DeviceSelector `json:"device,omitempty"`
}

// DeviceSelector narrows a role to devices; an empty field does not narrow,
// except Tiers.
type DeviceSelector struct {
	// Tiers default to hardware-attested, hardware and software: "none" must
	// be written out.
	Tiers     []DeviceTier      `json:"tiers,omitempty"`
	Ownership []DeviceOwnership `json:"ownership,omitempty"`
	// Platforms are GOOS names: linux, darwin, windows.
	Platforms []string `json:"platforms,omitempty"`
	// Approved, when true, demands a device that an administrator approved.
	Approved bool `json:"approved,omitempty"`
}

// DeviceTier is how well the device key is held.
type DeviceTier string

const (
	TierHardwareAttested DeviceTier = "hardware-attested"
	TierHardware         DeviceTier = "hardware"
	TierSoftware         DeviceTier = "software"
	TierNone             DeviceTier = "none"
)

// DeviceOwnership is who the device belongs to.
type DeviceOwnership string

const (
	OwnershipCorporate DeviceOwnership = "corporate"
	OwnershipPersonal  DeviceOwnership = "personal"
)
