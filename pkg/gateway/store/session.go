package store

import (
	"slices"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// SessionRecord is what control remembers of a session's last issue. It serves
// lists and SessionChange and never lets anyone in.
type SessionRecord struct {
	ID wire.SessionID `json:"id"`
	// Version is the sequence of the last write; set by the store.
	Version    uint64          `json:"version,omitempty"`
	User       wire.User       `json:"user"`
	Groups     []string        `json:"groups,omitempty"`
	Device     wire.DeviceID   `json:"device"`
	Thumbprint wire.Thumbprint `json:"thumbprint"`
	// Proof is the thumbprint of the proof key that is bound at present.
	Proof wire.Thumbprint `json:"proof,omitempty"`
	// Tier of the device in this session: "none" after a device-code login.
	Tier          string      `json:"tier,omitempty"`
	DeviceCode    bool        `json:"deviceCode,omitempty"`
	GroupsUnknown bool        `json:"groupsUnknown,omitempty"`
	Roles         []wire.Role `json:"roles,omitempty"`
	// Serial of the latest certificate, lower-case hex.
	Serial string `json:"serial,omitempty"`
	// NotAfter is that certificate's end.
	NotAfter time.Time `json:"notAfter,omitzero"`
	// Nonce of the login's ID token, empty for device code.
	Nonce string `json:"nonce,omitempty"`

	Issued      time.Time `json:"issued"`
	LastRenewed time.Time `json:"lastRenewed,omitzero"`
	// End is when renewal stops; Ended when it was ended before.
	End   time.Time `json:"end"`
	Ended time.Time `json:"ended,omitzero"`

	AuthTime        time.Time `json:"authTime,omitzero"`
	AMR             []string  `json:"amr,omitempty"`
	IDTokenIssuedAt time.Time `json:"idTokenIssuedAt,omitzero"`
	IDTokenExpires  time.Time `json:"idTokenExpires,omitzero"`
}

// forgotten: nobody needs the record any more.
func (r *SessionRecord) forgotten(now time.Time) bool { return now.After(r.End.Add(keepRecord)) }

// clone: records leave and enter the store by value.
func (r SessionRecord) clone() SessionRecord {
	r.Groups = slices.Clone(r.Groups)
	r.Roles = slices.Clone(r.Roles)
	r.AMR = slices.Clone(r.AMR)
	return r
}
