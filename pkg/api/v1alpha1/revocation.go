package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Revocation puts exactly one thing on the deny-list. Written as a manifest it
// is taken into the state at load; deleting the manifest lifts nothing.
type Revocation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              RevocationSpec   `json:"spec"`
	Status            RevocationStatus `json:"status,omitempty"`
}

// RevocationSpec names one target; exactly one of the fields up to Cluster is set.
// With Session, Roles may name those that are taken from it; without Roles the
// session has ended.
//
// A Certificate that is the latest of its session ends the session. An older one
// ends only what was opened with it: to end all, name the session or the device.
type RevocationSpec struct {
	User        string `json:"user,omitempty"`        // username, no prefix
	Group       string `json:"group,omitempty"`       // issuer's group
	Device      string `json:"device,omitempty"`      // device id
	Certificate string `json:"certificate,omitempty"` // serial, lower-case hex
	Session     string `json:"session,omitempty"`     // SID
	Role        string `json:"role,omitempty"`        // AccessRole
	Cluster     string `json:"cluster,omitempty"`     // TargetCluster

	// Roles taken from Session: only tokens older than this revocation lose
	// them. Set by the gateway (SessionChange).
	Roles []string `json:"roles,omitempty"`

	// Reason is shown to the people it concerns.
	Reason string `json:"reason,omitempty"`
	// At is when it was revoked, for those who look; set at load when empty, and
	// for sessions and certificates always. It holds at once, and for what is
	// issued later, too.
	At metav1.Time `json:"at,omitempty"`
	// By is who revoked; set by the gateway.
	By string `json:"by,omitempty"`
}

// RevocationStatus is set by the gateway and refused in a manifest.
type RevocationStatus struct {
	// Epoch from which on the revocation holds, GENERATION.SEQUENCE.
	Epoch string `json:"epoch,omitempty"`
	// People whom the gateway knew by the name in Spec.User when it took effect.
	// They stay revoked under whatever name they come later.
	People []RevokedPerson `json:"people,omitempty"`
}

// RevokedPerson is a person as his issuer knows him.
type RevokedPerson struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}
