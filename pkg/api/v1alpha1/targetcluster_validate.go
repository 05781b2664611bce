package v1alpha1

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// longestPermissive bounds how long an enforcement may be softened.
const longestPermissive = 30 * 24 * time.Hour

// Where Kubernetes mounts a pod's own account.
const (
	mountedToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	mountedCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// Default implements Object.
func (c *TargetCluster) Default() {
	s := &c.Spec
	if s.Impersonation == "" {
		s.Impersonation = ImpersonationConstrained
	}
	if s.Access == "" {
		s.Access = AccessEnabled
	}
	s.Enforcement.Default()
	if s.InCluster {
		if s.TokenFile == "" {
			s.TokenFile = mountedToken
		}
		if s.CertificateAuthorityFile == "" && s.CertificateAuthorityData == "" {
			s.CertificateAuthorityFile = mountedCA
		}
	}
}

// Validate implements Object.
func (c *TargetCluster) Validate(now time.Time) []Problem {
	var p problems
	if p.label("metadata.name", "cluster name", c.Name) && slices.Contains(wire.ReservedClusterNames, wire.ClusterName(c.Name)) {
		p.add("metadata.name", "%q is one of zt's own host names; a cluster cannot have it", c.Name)
	}
	p.meta(&c.ObjectMeta)

	s := &c.Spec
	p.text("spec.displayName", s.DisplayName, 128)
	p.text("spec.description", s.Description, 1024)
	if s.Link != "" {
		p.link("spec.link", s.Link)
	}
	c.validateUpstream(&p)
	word(&p, "spec.impersonation", s.Impersonation, ImpersonationConstrained, ImpersonationLegacy)
	word(&p, "spec.access", s.Access, AccessEnabled, AccessDisabled)
	s.Enforcement.validate(&p, "spec.enforcement", now)

	if s.ListenPort < 0 || s.ListenPort > 65535 {
		p.add("spec.listenPort", "%d is no port: 0 for any, or 1 to 65535", s.ListenPort)
	}
	if s.ListenPortFixed && s.ListenPort == 0 {
		p.add("spec.listenPortFixed", "there is no listenPort to fix")
	}
	return p
}

func (c *TargetCluster) validateUpstream(p *problems) {
	s := &c.Spec
	switch {
	case s.InCluster && s.URL != "":
		p.add("spec.url", "exactly one of inCluster and url may be set, here are both")
	case !s.InCluster && s.URL == "":
		p.add("spec", "exactly one of inCluster and url must be set, here is neither")
	case s.URL != "":
		p.https("spec.url", s.URL)
		if s.TokenFile == "" {
			p.add("spec.tokenFile", "is missing: the token of the zt-impersonate account at %s", clip(s.URL))
		}
	}
	if s.CertificateAuthorityFile != "" && s.CertificateAuthorityData != "" {
		p.add("spec.certificateAuthorityData", "at most one of certificateAuthorityFile and certificateAuthorityData may be set")
	}
	if s.CertificateAuthorityData != "" {
		p.certificates("spec.certificateAuthorityData", s.CertificateAuthorityData)
	}
	p.absolute("spec.certificateAuthorityFile", s.CertificateAuthorityFile)
	p.absolute("spec.tokenFile", s.TokenFile)
	if n := s.TLSServerName; n != "" && net.ParseIP(n) == nil && len(validation.IsDNS1123Subdomain(n)) > 0 {
		p.add("spec.tlsServerName", "%q is neither a DNS name nor an IP address", clip(n))
	}
}

// Default fills the mode.
func (e *Enforcement) Default() {
	if e.Mode == "" {
		e.Mode = EnforcementEnforcing
	}
}

func (e *Enforcement) validate(p *problems, field string, now time.Time) {
	word(p, field+".mode", e.Mode, EnforcementEnforcing, EnforcementPermissive)
	switch {
	case e.Mode == EnforcementPermissive && e.Until == nil:
		p.add(field+".until", "is missing: Permissive must end, at most 30 days from now")
	case e.Mode == EnforcementPermissive && e.Until.After(now.Add(longestPermissive)):
		p.hint(field+".until", now.Add(longestPermissive).UTC().Format(`"2006-01-02T00:00:00Z"`),
			"%s is more than 30 days from now; Permissive may last no longer", e.Until.UTC().Format(time.RFC3339))
	case e.Mode != EnforcementPermissive && e.Until != nil:
		p.add(field+".until", "has a meaning only with mode Permissive")
	}
}

// absolute: objects are read from a directory that is not the process's own, so
// a relative path would mean another file than the writer saw.
func (p *problems) absolute(field, path string) {
	if path != "" && !filepath.IsAbs(path) {
		p.add(field, "%q is not an absolute path", clip(path))
	}
}

func (p *problems) link(field, value string) {
	if !p.text(field, value, 1024) {
		return
	}
	if u, err := url.Parse(value); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		p.add(field, "%q is no link: https://…", clip(value))
	}
}

// https demands a base URL without anything that a request would inherit.
func (p *problems) https(field, value string) {
	if !p.text(field, value, 2048) {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil:
		p.add(field, "%q is no URL", clip(value))
	case u.Scheme == "http":
		p.hint(field, strconv.Quote("https"+value[len("http"):]), "%q: only https is spoken", clip(value))
	case u.Scheme != "https" || u.Hostname() == "":
		p.add(field, "%q is no URL of the form https://HOST[:PORT]", clip(value))
	case u.User != nil:
		// The value is not repeated: it may hold a password.
		p.add(field, "user and password do not belong into a URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		p.add(field, "%q: a query or fragment does not belong here", clip(value))
	case !portOK(u.Port()):
		p.add(field, "%q: %s is no port", clip(value), u.Port())
	}
}

func portOK(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.Atoi(port)
	return err == nil && n > 0 && n <= 65535
}

// certificates demands PEM certificates and nothing else, above all no key.
func (p *problems) certificates(field, value string) {
	if _, err := trust.ParseCertificates([]byte(value)); err != nil {
		p.add(field, "%v", err)
	}
}
