package v1alpha1

import "time"

// Kinds of what a Revocation names.
const (
	RevokedUser        = "user"
	RevokedGroup       = "group"
	RevokedDevice      = "device"
	RevokedCertificate = "certificate"
	RevokedSession     = "session"
	RevokedRole        = "role"
	RevokedCluster     = "cluster"
)

// Target is the one thing that is revoked; ok is false when s names none or
// more than one.
func (s *RevocationSpec) Target() (kind, value string, ok bool) {
	for _, t := range []struct{ kind, value string }{
		{RevokedUser, s.User},
		{RevokedGroup, s.Group},
		{RevokedDevice, s.Device},
		{RevokedCertificate, s.Certificate},
		{RevokedSession, s.Session},
		{RevokedRole, s.Role},
		{RevokedCluster, s.Cluster},
	} {
		if t.value == "" {
			continue
		}
		if kind != "" {
			return "", "", false
		}
		kind, value = t.kind, t.value
	}
	return kind, value, kind != ""
}

// Default implements Object; what the gateway sets is set when it is imported.
func (r *Revocation) Default() {}

// Validate implements Object, for a manifest.
func (r *Revocation) Validate(now time.Time) []Problem {
	var p problems
	p.subdomain("metadata.name", "revocation name", r.Name)
	p.meta(&r.ObjectMeta)
	s := &r.Spec
	kind, value, ok := s.Target()
	field := "spec." + kind
	switch {
	case !ok:
		p.add("spec", "exactly one of user, group, device, certificate, session, role and cluster must be set")
	case kind == RevokedUser || kind == RevokedGroup:
		p.person(field, kind, value)
	case kind == RevokedDevice && !isDeviceID(value):
		p.add(field, "%q is no device id: 20 characters of a-z and 2-7", clip(value))
	case kind == RevokedCertificate && !isLowerHex(value):
		p.add(field, "%q is no serial number: lower-case hexadecimal without colons", clip(value))
	case kind == RevokedRole || kind == RevokedCluster:
		p.label(field, kind+" name", value)
	default:
		p.text(field, value, longestName)
	}
	p.text("spec.reason", s.Reason, 256)
	if s.At.After(now.Add(time.Minute)) {
		p.add("spec.at", "%s has not come yet; a revocation holds at once", s.At.UTC().Format(time.RFC3339))
	}
	if s.By != "" {
		p.add("spec.by", "is set by the gateway; leave it out")
	}
	if len(s.Roles) > 0 {
		p.add("spec.roles", "is set by the gateway; to take a role from everybody set role")
	}
	if r.Status.Epoch != "" || r.Status.People != nil {
		p.add("status", "is set by the gateway; leave it out")
	}
	return p
}
