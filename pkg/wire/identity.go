// Package wire holds the names that cross a process border: identities, reasons,
// paths, headers and the messages between laptop and gateway. It decides
// nothing and depends on nothing but the standard library, so both sides can
// import it and neither has to import the other.
package wire

// Identities have their own types: two neighbouring strings of different
// meaning are a bug that the compiler shall find.
type (
	// ClusterName is an RFC 1123 label: TargetCluster, context and vhost label.
	ClusterName string
	// ClusterUID is random, made with the cluster's CA, and the audience of
	// access tokens and peer proofs for it.
	ClusterUID string
	// SessionID names one login on one device; random, 128 bits, base32.
	SessionID string
	// DeviceID is derived from the device key's thumbprint: the first 20
	// characters of its lower-case base32 form.
	DeviceID string
	// Thumbprint is the RFC 7638 SHA-256 thumbprint of a public key, base64url
	// without padding.
	Thumbprint string
	// Issuer and Subject together are a person's identity; neither is one alone.
	Issuer  string
	Subject string
	// Username is the name by the issuer's claim, without zt's prefix.
	Username string
	// Role is the name of an AccessRole.
	Role string
	// DecisionID joins a refusal, its audit record and the cluster's audit.
	DecisionID string
)

// User is a person: always the pair of issuer and subject, and how he is called.
type User struct {
	Issuer  Issuer   `json:"iss"`
	Subject Subject  `json:"sub"`
	Name    Username `json:"name"`
}

// Same reports whether u and o are the same person, whatever they are called.
func (u User) Same(o User) bool { return u.Issuer == o.Issuer && u.Subject == o.Subject }

// Device is what a token and a decision know of the device.
type Device struct {
	ID         DeviceID   `json:"id"`
	Thumbprint Thumbprint `json:"jkt"`
	Tier       string     `json:"tier"`
	Ownership  string     `json:"ownership"`
	Approved   bool       `json:"approved,omitempty"`
	Platform   string     `json:"platform,omitempty"`
}
