package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GatewayConfiguration is the file that `zt-gateway serve --config` reads. It
// says how the process is reached and whom it trusts; clusters, roles and
// policies are objects of their own in Directory/config.
type GatewayConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// Domain is the DNS suffix of every name the gateway answers to:
	// gw.DOMAIN, tunnel.DOMAIN, CLUSTER.DOMAIN and CLUSTER.direct.DOMAIN.
	Domain string `json:"domain"`
	// TrustDomain stands in the URI names of client certificates and is the
	// audience of proofs toward control. Default: Domain.
	TrustDomain string `json:"trustDomain,omitempty"`
	// Listen is the one public address, host:port. Default ":8443".
	Listen string `json:"listen,omitempty"`
	// PublicAddress is host:port under which laptops reach Listen, as printed
	// by `zt-gateway init`. Default: gw.DOMAIN with the port of Listen.
	PublicAddress string `json:"publicAddress,omitempty"`
	// Directory holds config/ (people's) and state/ (the gateway's).
	Directory string `json:"directory"`
	// Certificate, when set, is what gw.DOMAIN shows (usually WebPKI). Unset,
	// gw.DOMAIN shows a leaf of the gateway's own CA and laptops pin that CA.
	Certificate *CertificateFiles `json:"certificate,omitempty"`

	OIDC     OIDC     `json:"oidc"`
	Login    Login    `json:"login,omitempty"`
	Session  Session  `json:"session,omitempty"`
	Metrics  Metrics  `json:"metrics,omitempty"`
	Audit    Audit    `json:"audit,omitempty"`
	Limits   Limits   `json:"limits,omitempty"`
	Shutdown Shutdown `json:"shutdown,omitempty"`

	// FurtherIssuersFile names an AuthenticationConfiguration
	// (apiserver.config.k8s.io/v1) whose issuers are accepted beside control's
	// own tokens. They hold device tier "none".
	FurtherIssuersFile string `json:"furtherIssuersFile,omitempty"`
}

// CertificateFiles names a PEM certificate chain and its key.
type CertificateFiles struct {
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
}

// OIDC is the identity provider at which people log in.
type OIDC struct {
	// Issuer is compared byte by byte with discovery and with every token.
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"clientID"`
	Scopes   []string `json:"scopes,omitempty"` // default openid, email, groups, offline_access
	// CertificateAuthorityFile is a PEM bundle for an issuer outside WebPKI.
	CertificateAuthorityFile string `json:"certificateAuthorityFile,omitempty"`
	// UsernameClaim becomes the user's name. Default "email", which demands
	// email_verified to be true.
	UsernameClaim string `json:"usernameClaim,omitempty"`
	// UsernamePrefix is put before it toward Kubernetes. Default "zt:".
	UsernamePrefix string `json:"usernamePrefix,omitempty"`
	// GroupsClaim feeds AccessRole.spec.groups. Default "groups".
	GroupsClaim string `json:"groupsClaim,omitempty"`
	// SigningAlgorithms default to RS256, ES256 and PS256.
	SigningAlgorithms []string `json:"signingAlgorithms,omitempty"`
	// RequiredClaims must be present with exactly these values.
	RequiredClaims map[string]string `json:"requiredClaims,omitempty"`
}

// EnrolmentMode says what an unknown device key may do.
type EnrolmentMode string

const (
	// EnrolmentOpen lets an unknown key pass as pending, personal, software;
	// its first user becomes its owner.
	EnrolmentOpen EnrolmentMode = "Open"
	// EnrolmentApproval refuses an unknown key before the login page; it must
	// enrol and an administrator must approve it.
	EnrolmentApproval EnrolmentMode = "Approval"
)

// Login says how people may log in.
type Login struct {
	// DeviceCode allows the device authorisation grant (RFC 8628). Default false.
	DeviceCode bool `json:"deviceCode,omitempty"`
	// Enrolment defaults to Approval.
	Enrolment EnrolmentMode `json:"enrolment,omitempty"`
}

// Session bounds what is issued.
type Session struct {
	// CertificateLifetime of a trust certificate: default 1h, at most 12h.
	CertificateLifetime metav1.Duration `json:"certificateLifetime,omitempty"`
	// TokenLifetime of an access token: default 5m, at most 15m.
	TokenLifetime metav1.Duration `json:"tokenLifetime,omitempty"`
	// MaxLength of a session whatever is renewed: default 12h.
	MaxLength metav1.Duration `json:"maxLength,omitempty"`
	// Grace after the ID token's end where the issuer gives neither a refreshed
	// ID token nor userinfo: default 5m.
	Grace metav1.Duration `json:"grace,omitempty"`
}

// Metrics is a listener of its own for /metrics, /livez and /readyz.
type Metrics struct {
	// Listen is a loopback host:port. Default "127.0.0.1:9090".
	Listen string `json:"listen,omitempty"`
}

// Audit is the local log of intents, outcomes and decisions.
type Audit struct {
	// File is created 0600. Default DIRECTORY/state/audit.log.
	File string `json:"file,omitempty"`
}

// Limits are on by default; zero means the default.
type Limits struct {
	// TunnelsPerDevice that may be open at once. Default 256.
	TunnelsPerDevice int `json:"tunnelsPerDevice,omitempty"`
	// ReadsInFlight and WritesInFlight per cluster. Defaults 400 and 200.
	ReadsInFlight  int `json:"readsInFlight,omitempty"`
	WritesInFlight int `json:"writesInFlight,omitempty"`
	// LoginsPerSourcePerMinute on gw.DOMAIN. Default 120.
	LoginsPerSourcePerMinute int `json:"loginsPerSourcePerMinute,omitempty"`
}

// Shutdown bounds the drain after SIGTERM.
type Shutdown struct {
	// DrainTimeout after which streams are told the reason and closed.
	// Default 25s.
	DrainTimeout metav1.Duration `json:"drainTimeout,omitempty"`
	// Delay is the first part of DrainTimeout: /readyz says no, and all else goes
	// on, new connections too, until load balancers have seen it. Default 3s, or a
	// fifth of DrainTimeout where that is less.
	Delay *metav1.Duration `json:"delay,omitempty"`
}
