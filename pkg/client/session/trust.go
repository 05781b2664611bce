package session

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Meet is first contact: it asks the gateway at the login URL who it is. The
// answer counts because its certificate is WebPKI-valid or under the given pin;
// there is no trust on first use. A pin that was given once holds also where it is
// left out. Nothing is saved.
func Meet(ctx context.Context, d Deps, gateway, pin string) (*profile.Profile, error) {
	u, err := url.Parse(gateway)
	if err != nil {
		return nil, fault.New(fault.ExitUsage, "kubectl zt login https://GATEWAY", "%q is not a URL", gateway)
	}
	if pin == "" {
		pin = knownPin(d.Home, gateway)
	}
	c := &clock{now: d.Now}
	gw := newGateway(d, c, u.Host, u.Hostname(), pin)
	defer gw.close()
	var disc wire.Discovery
	if err := gw.call(ctx, http.MethodGet, wire.PathDiscovery, nil, &disc); err != nil {
		return nil, stranger(err, gateway)
	}
	p := &profile.Profile{
		Name: profile.Name(disc.Domain), Gateway: gateway, Pin: pin,
		Domain: disc.Domain, TrustDomain: disc.TrustDomain, GatewayCA: disc.GatewayCA,
		OIDC: disc.OIDC, Enrolment: disc.Enrolment,
	}
	if err := sound(p); err != nil {
		return nil, err
	}
	if err := oldEnough(d.Version, disc.MinimumClient); err != nil {
		return nil, err
	}
	// The name that every later call will ask for must be served, too.
	named := newGateway(d, c, p.Address(), p.ServerName(), pin)
	defer named.close()
	if err := named.call(ctx, http.MethodGet, wire.PathDiscovery, nil, new(wire.Discovery)); err != nil {
		return nil, stranger(err, gateway)
	}
	return p, nil
}

// knownPin is the pin of the profiles of that gateway, or empty. A profile that
// cannot be read has none: then the gateway is a stranger, which is refused.
func knownPin(h profile.Home, gateway string) string {
	names, err := h.List()
	if err != nil {
		return ""
	}
	for _, n := range names {
		if p, err := h.Load(n); err == nil && p.Gateway == gateway && p.Pin != "" {
			return p.Pin
		}
	}
	return ""
}

// trustCommand is what accepts the gateway of p as it is now. Without the pin, a
// gateway that has one could not even be asked.
func trustCommand(p *profile.Profile) string {
	u := p.Gateway
	if p.Pin != "" {
		u += "#sha256=" + p.Pin
	}
	return "kubectl zt trust '" + u + "'" // quoted: some shells take # for a comment
}

// stranger explains an unknown authority: what was shown, and how to go on if the
// person can compare it.
func stranger(err error, gateway string) error {
	var unknown *trust.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return err
	}
	if unknown.Pinned {
		return fault.New(fault.ExitUntrusted, "ask the gateway's administrator for the pin of `zt-gateway init`",
			"%s does not stand under the pinned authority; it shows sha256=%s", gateway, unknown.Fingerprint)
	}
	return fault.New(fault.ExitUntrusted, "compare the fingerprint with the one that `zt-gateway init` printed",
		"%s shows an authority that this computer does not know: sha256=%s", gateway, unknown.Fingerprint).
		Hint("if it is the same: kubectl zt login '" + gateway + "#sha256=" + unknown.Fingerprint + "'")
}

// sound refuses a discovery document that could not be lived with.
func sound(p *profile.Profile) error {
	bad := func(what string) error {
		return fault.New(fault.ExitUntrusted, "ask the gateway's administrator", "%s describes itself badly: %s", p.Gateway, what)
	}
	ca, err := trust.ParseCertificates([]byte(p.GatewayCA))
	switch {
	case !p.Name.Valid() || p.Domain == "" || strings.ToLower(p.Domain) != p.Domain:
		return bad("domain")
	case p.TrustDomain == "":
		return bad("trust domain")
	case p.OIDC.Issuer == "" || p.OIDC.ClientID == "":
		return bad("issuer or client id")
	case err != nil || len(ca) != 1 || !ca[0].IsCA:
		return bad("its certificate authority")
	case p.Pin != "" && trust.SPKIPin(ca[0]) != p.Pin:
		return fault.New(fault.ExitUntrusted, "ask the gateway's administrator for the pin of `zt-gateway init`",
			"%s names another authority than the pinned one: sha256=%s", p.Gateway, trust.SPKIPin(ca[0]))
	}
	return nil
}

// Changes lists what differs between two profiles of one gateway and is fixed
// until the person agrees: old and new, one line each.
func Changes(old, now *profile.Profile) []string {
	var out []string
	for _, f := range []struct{ name, a, b string }{
		{"domain", old.Domain, now.Domain},
		{"trust domain", old.TrustDomain, now.TrustDomain},
		{"authority", Fingerprint(old.GatewayCA), Fingerprint(now.GatewayCA)},
		{"issuer", string(old.OIDC.Issuer), string(now.OIDC.Issuer)},
		{"client id", old.OIDC.ClientID, now.OIDC.ClientID},
		{"issuer's authority", strings.TrimSpace(old.OIDC.CA), strings.TrimSpace(now.OIDC.CA)},
	} {
		if f.a != f.b {
			if strings.Contains(f.a+f.b, "BEGIN") {
				f.a, f.b = Fingerprint(f.a), Fingerprint(f.b)
			}
			out = append(out, f.name+": "+fault.Escape(orNone(f.a))+" -> "+fault.Escape(orNone(f.b)))
		}
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Fingerprint is the pin of the first certificate in a PEM, or empty.
func Fingerprint(text string) string {
	certs, err := trust.ParseCertificates([]byte(text))
	if err != nil || len(certs) == 0 {
		return ""
	}
	return "sha256=" + trust.SPKIPin(certs[0])
}

func poolOf(certs ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// gateway is the caller for gw., which any certificate-less client may talk to.
type gateway struct {
	caller
	transport *http.Transport
}

// newGateway dials address always, whatever serverName is: only the login URL
// needs DNS.
func newGateway(d Deps, c *clock, address, serverName, pin string) *gateway {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.Dial(ctx, network, address)
		},
		TLSClientConfig:     trust.GatewayClient(serverName, pin, d.SystemRoots),
		TLSHandshakeTimeout: answerLimit,
		ForceAttemptHTTP2:   true,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
	return &gateway{
		caller: caller{
			client: &http.Client{Transport: t, CheckRedirect: noRedirect},
			base:   "https://" + hostForURL(serverName), name: "the gateway at " + address, agent: d.userAgent(), clock: c,
		},
		transport: t,
	}
}

func (g *gateway) close() { g.transport.CloseIdleConnections() }

// noRedirect: what goes to gw. is meant for gw.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func hostForURL(name string) string {
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// oldEnough holds our version against the least one that the gateway serves. A
// development build has no number and passes.
func oldEnough(ours, least string) error {
	a, ok1 := numbers(ours)
	b, ok2 := numbers(least)
	if ok1 && ok2 && slices.Compare(a, b) < 0 {
		return fault.New(fault.ExitRefused, "kubectl krew upgrade zt", "this gateway needs kubectl-zt %s or newer, this is %s", least, ours).Because(wire.ReasonClientTooOld)
	}
	return nil
}
