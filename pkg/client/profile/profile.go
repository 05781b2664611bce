package profile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

// Name of a profile: one gateway. It is the user name in proxy-url and a file
// name, hence the narrow alphabet.
type Name string

// Valid reports whether n can be a file name and a proxy user name.
func (n Name) Valid() bool {
	if len(n) == 0 || len(n) > 63 || n[0] == '.' || n[0] == '-' {
		return false
	}
	for i := range len(n) {
		c := n[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// version of the file. A newer one is refused and not misread.
const version = 1

// Profile is what was learnt of a gateway at first contact and is fixed since:
// a change needs `kubectl zt trust`.
type Profile struct {
	Version int  `json:"version"`
	Name    Name `json:"name"`
	// Gateway is the login URL: its host and port are what is dialled, always.
	Gateway string `json:"gateway"`
	// Pin is the SHA-256 (hex) of the SubjectPublicKeyInfo of the gateway's CA
	// that the person gave; empty when gw.DOMAIN shows a WebPKI certificate.
	Pin         string    `json:"pin,omitempty"`
	Domain      string    `json:"domain"`
	TrustDomain string    `json:"trustDomain"`
	GatewayCA   string    `json:"gatewayCA"` // PEM
	OIDC        wire.OIDC `json:"oidc"`
	Enrolment   string    `json:"enrolment,omitempty"`
	// Clusters pins what each cluster was seen with first.
	Clusters map[wire.ClusterName]ClusterPin `json:"clusters,omitempty"`
	// Kubeconfigs are the files that hold contexts of this profile, so that
	// logout can clean them.
	Kubeconfigs []string `json:"kubeconfigs,omitempty"`
}

// ClusterPin is a cluster's identity. The CA is the cluster's own: neither the
// edge nor control can stand in for it.
type ClusterPin struct {
	UID wire.ClusterUID `json:"uid"`
	CA  string          `json:"ca"` // PEM
}

// ServerName is the TLS name of gw., which need not be in any DNS.
func (p *Profile) ServerName() string { return wire.GatewayLabel + "." + p.Domain }

// TunnelName is the TLS name of tunnel.
func (p *Profile) TunnelName() string { return wire.TunnelLabel + "." + p.Domain }

// Host is the name under which kubectl reaches cluster c.
func (p *Profile) Host(c wire.ClusterName) string { return string(c) + "." + p.Domain }

// Address is host:port to dial, for every regime.
func (p *Profile) Address() string {
	u, err := url.Parse(p.Gateway)
	if err != nil {
		return ""
	}
	return u.Host
}

// Clone returns a copy that shares nothing with p.
func (p *Profile) Clone() *Profile {
	c := *p
	c.OIDC.Scopes = slices.Clone(p.OIDC.Scopes)
	c.Kubeconfigs = slices.Clone(p.Kubeconfigs)
	c.Clusters = make(map[wire.ClusterName]ClusterPin, len(p.Clusters))
	for k, v := range p.Clusters {
		c.Clusters[k] = v
	}
	return &c
}

// Load reads a profile. An unknown name is a refusal that names the next
// command: a kubeconfig from somewhere cannot make zt talk to a gateway that
// its user never trusted (V016).
func (h Home) Load(n Name) (*Profile, error) {
	if !n.Valid() {
		return nil, fault.New(fault.ExitUsage, "", "profile name %q is not lower-case letters, digits, '-' and '.'", string(n))
	}
	data, err := ReadFile(h.file(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknown(n)
	}
	if err != nil {
		return nil, err
	}
	p := new(Profile)
	if err := json.Unmarshal(data, p); err != nil || p.Name != n {
		return nil, fault.New(fault.ExitUntrusted, "kubectl zt trust URL", "profile %q cannot be read: the file is damaged", string(n))
	}
	if p.Version != version {
		return nil, fault.New(fault.ExitFailed, "install the newer kubectl-zt", "profile %q was written by another version of kubectl-zt (format %d)", string(n), p.Version)
	}
	return p, nil
}

func unknown(n Name) error {
	return fault.New(fault.ExitUntrusted, "kubectl zt trust https://GATEWAY#sha256=PIN", "unknown gateway: there is no profile %q", string(n))
}

// Save writes p.
func (h Home) Save(p *Profile) error {
	if !p.Name.Valid() {
		return fmt.Errorf("save profile: bad name %q", string(p.Name))
	}
	p.Version = version
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode profile: %w", err)
	}
	return WriteFile(h.file(p.Name), append(data, '\n'))
}

// Forget removes the profile and its device key.
func (h Home) Forget(n Name) error {
	if cur, _ := h.Current(); cur == n {
		if err := os.Remove(h.current()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.File(err, "remove it: rm -r "+h.current(), "%s cannot be removed", h.current())
		}
	}
	for _, f := range []string{h.Key(n), h.file(n)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.File(err, "remove it: rm -r "+f, "%s cannot be removed", f)
		}
	}
	return nil
}

// List names all profiles, sorted.
func (h Home) List() ([]Name, error) {
	entries, err := os.ReadDir(h.profiles())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.File(err, elsewhere, "%s cannot be read", h.profiles())
	}
	var names []Name
	for _, e := range entries {
		if n, ok := strings.CutSuffix(e.Name(), ".json"); ok && Name(n).Valid() {
			names = append(names, Name(n))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Current is the profile that was last made current, or empty.
func (h Home) Current() (Name, error) {
	data, err := ReadFile(h.current())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	n := Name(strings.TrimSpace(string(data)))
	if !n.Valid() {
		return "", nil
	}
	return n, nil
}

// SetCurrent makes n what commands without --profile mean.
func (h Home) SetCurrent(n Name) error { return WriteFile(h.current(), []byte(string(n)+"\n")) }

// Choose resolves what the person asked for: a name, else the current profile,
// else the only one.
func (h Home) Choose(asked Name) (*Profile, error) {
	if asked != "" {
		return h.Load(asked)
	}
	cur, err := h.Current()
	if err != nil {
		return nil, err
	}
	names, err := h.List()
	if err != nil {
		return nil, err
	}
	switch {
	case cur != "" && slices.Contains(names, cur):
		return h.Load(cur)
	case len(names) == 1:
		return h.Load(names[0])
	case len(names) == 0:
		return nil, fault.New(fault.ExitLogin, "kubectl zt login https://GATEWAY", "no gateway is known yet")
	default:
		return nil, fault.New(fault.ExitUsage, "kubectl zt --profile "+string(names[0])+" …", "there are %d profiles and none is current", len(names))
	}
}

// ParseGateway splits a login URL https://HOST[:PORT][#sha256=PIN] into the URL
// that is dialled, with its port, and the pin in lower-case hex.
func ParseGateway(s string) (gateway, pin string, err error) {
	bad := func(format string, args ...any) error {
		return fault.New(fault.ExitUsage, "kubectl zt login https://GATEWAY#sha256=PIN", format, args...)
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme == "" {
		return "", "", bad("%q is not the URL of a gateway", s)
	}
	if u.Scheme != "https" {
		return "", "", bad("the gateway's URL must be https, not %s", u.Scheme)
	}
	if u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return "", "", bad("the gateway's URL is https://HOST[:PORT][#sha256=PIN] and nothing else")
	}
	if u.Fragment != "" {
		p, ok := strings.CutPrefix(u.Fragment, "sha256=")
		pin = strings.ToLower(strings.ReplaceAll(p, ":", ""))
		if !ok || !isPin(pin) {
			return "", "", bad("the pin is sha256= and 64 hexadecimal digits, as `zt-gateway init` prints it")
		}
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return "https://" + strings.ToLower(host) + ":" + port, pin, nil
}

// isPin reports whether s is a SHA-256 in lower-case hex.
func isPin(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return len(s) == 64
}
