package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Device is, as a manifest, the administrator's wish for a device, and, in the
// state, what was seen of it. The stricter wins; a revocation always does, and
// deleting the manifest lifts nothing. Its name is the device id, which the
// gateway derives from the key's thumbprint.
type Device struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              DeviceSpec   `json:"spec,omitempty"`
	Status            DeviceStatus `json:"status,omitempty"`
}

// DeviceSpec is the wish.
type DeviceSpec struct {
	// Owner is a username; empty leaves the first user as the owner.
	Owner     string          `json:"owner,omitempty"`
	Ownership DeviceOwnership `json:"ownership,omitempty"` // default personal
	Approved  bool            `json:"approved,omitempty"`
	Revoked   bool            `json:"revoked,omitempty"`
}

// DeviceStatus is what the gateway has seen. It is refused in a manifest.
type DeviceStatus struct {
	// Thumbprint of the device key (RFC 7638, SHA-256, base64url).
	Thumbprint string `json:"thumbprint,omitempty"`
	// Owner is the first user (username) and OwnerID his issuer and subject.
	Owner        string      `json:"owner,omitempty"`
	OwnerIssuer  string      `json:"ownerIssuer,omitempty"`
	OwnerSubject string      `json:"ownerSubject,omitempty"`
	Tier         DeviceTier  `json:"tier,omitempty"`
	Platform     string      `json:"platform,omitempty"`
	Hostname     string      `json:"hostname,omitempty"`
	Phase        DevicePhase `json:"phase,omitempty"`
	FirstSeen    metav1.Time `json:"firstSeen,omitempty"`
	Revision     int64       `json:"revision,omitempty"`
}

// DevicePhase is Pending, Approved or Revoked.
type DevicePhase string

const (
	DevicePending  DevicePhase = "Pending"
	DeviceApproved DevicePhase = "Approved"
	DeviceRevoked  DevicePhase = "Revoked"
)
