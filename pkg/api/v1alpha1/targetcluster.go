package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TargetCluster is one Kubernetes API that people reach through zt. Its name is
// an RFC 1123 label of at most 63 characters and also the kubeconfig context
// and the first label of its virtual host.
type TargetCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              TargetClusterSpec `json:"spec"`
}

// TargetClusterSpec says how the cluster is shown and reached.
type TargetClusterSpec struct {
	DisplayName string `json:"displayName,omitempty"`
	Description string `json:"description,omitempty"`
	Link        string `json:"link,omitempty"`
	// Hidden leaves the cluster out of lists; by name it can still be reached.
	Hidden  bool `json:"hidden,omitempty"`
	Autorun bool `json:"autorun,omitempty"`

	// Exactly one of InCluster and URL is set.
	InCluster bool `json:"inCluster,omitempty"`
	// URL of the kube-apiserver, https only.
	URL string `json:"url,omitempty"`
	// CertificateAuthorityFile or CertificateAuthorityData (PEM) verify URL.
	CertificateAuthorityFile string `json:"certificateAuthorityFile,omitempty"`
	CertificateAuthorityData string `json:"certificateAuthorityData,omitempty"`
	// TokenFile holds the token of the zt-impersonate service account; it is
	// read again when it changes. In-cluster it defaults to the mounted one.
	TokenFile string `json:"tokenFile,omitempty"`
	// TLSServerName overrides the name expected in URL's certificate.
	TLSServerName string `json:"tlsServerName,omitempty"`

	// Impersonation is Constrained (default; Kubernetes 1.36 or newer) or Legacy.
	Impersonation ImpersonationProfile `json:"impersonation,omitempty"`
	// Access is Enabled (default) or Disabled.
	Access AccessSwitch `json:"access,omitempty"`
	// Direct opens CLUSTER.direct.DOMAIN for further issuers and kubeconfig
	// certificates, without a tunnel. Default false.
	Direct bool `json:"direct,omitempty"`
	// Enforcement for requests that no policy covers: Enforcing (default)
	// refuses them; Permissive lets them pass until Until, recorded as would-be
	// denials.
	Enforcement Enforcement `json:"enforcement,omitempty"`
	// ListenPort of the laptop's loopback listener, 0 for any. ListenPortFixed
	// forbids the person to choose another.
	ListenPort      int32 `json:"listenPort,omitempty"`
	ListenPortFixed bool  `json:"listenPortFixed,omitempty"`
}

// ImpersonationProfile is how the gateway's account may impersonate.
type ImpersonationProfile string

const (
	// ImpersonationConstrained uses KEP-5284: identity and action are both
	// authorised, so the account can do for a user only what RBAC lists.
	ImpersonationConstrained ImpersonationProfile = "Constrained"
	// ImpersonationLegacy uses the verb impersonate, groups by resourceNames.
	ImpersonationLegacy ImpersonationProfile = "Legacy"
)

// AccessSwitch turns a cluster on or off for everybody.
type AccessSwitch string

const (
	AccessEnabled  AccessSwitch = "Enabled"
	AccessDisabled AccessSwitch = "Disabled"
)

// Enforcement is a mode and, for Permissive, its mandatory end.
type Enforcement struct {
	Mode EnforcementMode `json:"mode,omitempty"`
	// Until ends Permissive, at most 30 days from the object's load.
	Until *metav1.Time `json:"until,omitempty"`
}

// EnforcementMode is Enforcing or Permissive.
type EnforcementMode string

const (
	EnforcementEnforcing  EnforcementMode = "Enforcing"
	EnforcementPermissive EnforcementMode = "Permissive"
)
