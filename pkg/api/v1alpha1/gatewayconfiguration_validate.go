package v1alpha1

import (
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// KindGatewayConfiguration is the kind of the file given to serve --config.
const KindGatewayConfiguration = "GatewayConfiguration"

// Bounds of what may be configured.
const (
	longestCertificate = 12 * time.Hour
	longestToken       = 15 * time.Minute
	longestSession     = 7 * 24 * time.Hour
	longestGrace       = time.Hour
	longestDrain       = 10 * time.Minute
	shortestLifetime   = time.Minute
	// A cluster's direct host name must fit: 63 + ".direct." + domain <= 253.
	longestDomain = 253 - 63 - len(".direct.")
)

// Default fills what was left out.
func (c *GatewayConfiguration) Default() {
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	number := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	duration := func(field *metav1.Duration, value time.Duration) {
		if field.Duration == 0 {
			field.Duration = value
		}
	}
	text(&c.TrustDomain, c.Domain)
	text(&c.Listen, ":8443")
	if _, port, err := net.SplitHostPort(c.Listen); err == nil {
		text(&c.PublicAddress, net.JoinHostPort("gw."+c.Domain, port))
	}
	if len(c.OIDC.Scopes) == 0 {
		c.OIDC.Scopes = []string{"openid", "email", "groups", "offline_access"}
	}
	text(&c.OIDC.UsernameClaim, "email")
	text(&c.OIDC.UsernamePrefix, "zt:")
	text(&c.OIDC.GroupsClaim, "groups")
	if len(c.OIDC.SigningAlgorithms) == 0 {
		c.OIDC.SigningAlgorithms = []string{"RS256", "ES256", "PS256"}
	}
	if c.Login.Enrolment == "" {
		c.Login.Enrolment = EnrolmentApproval
	}
	duration(&c.Session.CertificateLifetime, time.Hour)
	duration(&c.Session.TokenLifetime, 5*time.Minute)
	duration(&c.Session.MaxLength, 12*time.Hour)
	duration(&c.Session.Grace, 5*time.Minute)
	text(&c.Metrics.Listen, "127.0.0.1:9090")
	if c.Directory != "" {
		text(&c.Audit.File, filepath.Join(c.Directory, "state", "audit.log"))
	}
	number(&c.Limits.TunnelsPerDevice, 256)
	number(&c.Limits.ReadsInFlight, 400)
	number(&c.Limits.WritesInFlight, 200)
	number(&c.Limits.LoginsPerSourcePerMinute, 120)
	duration(&c.Shutdown.DrainTimeout, 25*time.Second)
	if c.Shutdown.Delay == nil {
		c.Shutdown.Delay = &metav1.Duration{Duration: max(0, min(3*time.Second, c.Shutdown.DrainTimeout.Duration/5))}
	}
}

// Validate reports every problem at once. Files are not opened here.
func (c *GatewayConfiguration) Validate(time.Time) []Problem {
	var p problems
	p.domain("domain", c.Domain, longestDomain)
	if c.TrustDomain != c.Domain {
		p.domain("trustDomain", c.TrustDomain, 253)
	}
	p.hostPort("listen", c.Listen)
	if p.hostPort("publicAddress", c.PublicAddress) {
		host, _, _ := net.SplitHostPort(c.PublicAddress)
		if _, err := netip.ParseAddr(host); err != nil {
			p.domain("publicAddress", host, 253)
		}
	}
	if c.Directory == "" {
		p.add("directory", "is missing: the directory that holds config/ and state/")
	}
	if f := c.Certificate; f != nil && (f.CertFile == "" || f.KeyFile == "") {
		p.add("certificate", "needs certFile and keyFile")
	}
	c.OIDC.validate(&p)
	word(&p, "login.enrolment", c.Login.Enrolment, EnrolmentOpen, EnrolmentApproval)

	s := &c.Session
	p.between("session.certificateLifetime", s.CertificateLifetime, shortestLifetime, longestCertificate)
	p.between("session.tokenLifetime", s.TokenLifetime, shortestLifetime, longestToken)
	p.between("session.maxLength", s.MaxLength, shortestLifetime, longestSession)
	p.between("session.grace", s.Grace, 0, longestGrace)
	p.between("shutdown.drainTimeout", c.Shutdown.DrainTimeout, 0, longestDrain)
	if d := c.Shutdown.Delay; d != nil {
		p.between("shutdown.delay", *d, 0, c.Shutdown.DrainTimeout.Duration)
	}

	if p.hostPort("metrics.listen", c.Metrics.Listen) && !loopback(c.Metrics.Listen) {
		p.hint("metrics.listen", `"127.0.0.1:9090"`, "%q is not a loopback address; metrics and health are not for the network", c.Metrics.Listen)
	}
	for _, n := range []struct {
		field string
		value int
	}{
		{"limits.tunnelsPerDevice", c.Limits.TunnelsPerDevice},
		{"limits.readsInFlight", c.Limits.ReadsInFlight},
		{"limits.writesInFlight", c.Limits.WritesInFlight},
		{"limits.loginsPerSourcePerMinute", c.Limits.LoginsPerSourcePerMinute},
	} {
		if n.value < 1 || n.value > 1_000_000 {
			p.add(n.field, "%d is not between 1 and 1000000", n.value)
		}
	}
	return p
}

// Algorithms by asymmetric keys only: with a shared secret whoever verifies
// could also sign.
var signingAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func (o *OIDC) validate(p *problems) {
	if o.Issuer == "" {
		p.add("oidc.issuer", "is missing: the issuer's URL, exactly as its tokens say it")
	} else {
		p.https("oidc.issuer", o.Issuer)
	}
	if o.ClientID == "" {
		p.add("oidc.clientID", "is missing")
	} else {
		p.text("oidc.clientID", o.ClientID, longestName)
	}
	if !slices.Contains(o.Scopes, "openid") {
		p.add("oidc.scopes", "\"openid\" is missing; without it there is no ID token")
	}
	for i, scope := range o.Scopes {
		if scope == "" || strings.ContainsAny(scope, " \"\\") || !p.text(at("oidc.scopes", i), scope, longestName) {
			p.add(at("oidc.scopes", i), "%q is no scope", clip(scope))
		}
	}
	distinct(p, "oidc.scopes", o.Scopes)
	p.text("oidc.usernameClaim", o.UsernameClaim, longestName)
	p.text("oidc.groupsClaim", o.GroupsClaim, longestName)
	if p.text("oidc.usernamePrefix", o.UsernamePrefix, 64) && strings.HasPrefix(o.UsernamePrefix, "system:") {
		p.add("oidc.usernamePrefix", "%q: names that begin with \"system:\" are Kubernetes' own", o.UsernamePrefix)
	}
	for i, algorithm := range o.SigningAlgorithms {
		if algorithm == "none" || strings.HasPrefix(algorithm, "HS") {
			p.add(at("oidc.signingAlgorithms", i), "%q proves nothing about the issuer", clip(algorithm))
			continue
		}
		word(p, at("oidc.signingAlgorithms", i), algorithm, signingAlgorithms...)
	}
	for _, claim := range slices.Sorted(maps.Keys(o.RequiredClaims)) {
		if claim == "" || o.RequiredClaims[claim] == "" {
			p.add("oidc.requiredClaims", "claim %q must have a name and a value", clip(claim))
		}
	}
}

func (p *problems) domain(field, value string, longest int) {
	switch {
	case value == "":
		p.add(field, "is missing: a DNS name")
	case len(value) > longest:
		p.add(field, "is %d characters long, at most %d are allowed so that every host name fits", len(value), longest)
	case len(validation.IsDNS1123Subdomain(value)) > 0:
		hint := ""
		if lower := strings.ToLower(strings.TrimSuffix(value, ".")); len(validation.IsDNS1123Subdomain(lower)) == 0 {
			hint = `"` + lower + `"`
		}
		p.hint(field, hint, "%q is no DNS name in lower case", clip(value))
	default:
		for label := range strings.SplitSeq(value, ".") {
			if len(label) > validation.DNS1123LabelMaxLength {
				p.add(field, "%q: a label of a DNS name has at most 63 characters", clip(value))
				return
			}
		}
	}
}

func (p *problems) hostPort(field, value string) bool {
	_, port, err := net.SplitHostPort(value)
	if err != nil || port == "" || (port != "0" && !portOK(port)) {
		p.add(field, "%q is not of the form HOST:PORT", clip(value))
		return false
	}
	return true
}

func loopback(hostPort string) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && addr.Unmap().IsLoopback())
}

func (p *problems) between(field string, value metav1.Duration, least, most time.Duration) {
	if value.Duration < least || value.Duration > most {
		p.add(field, "%s is not between %s and %s", value.Duration, least, most)
	}
}
