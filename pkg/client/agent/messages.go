package agent

import (
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/wire"
)

// Arguments and results of the operations, where they are not a type of their
// own already.

// CredentialArgs asks for the document that client-go reads.
type CredentialArgs struct {
	Cluster wire.ClusterName `json:"cluster"`
	// ExecInfo is KUBERNETES_EXEC_INFO as it was found.
	ExecInfo string `json:"execInfo,omitempty"`
}

// TrustArgs asks for first contact, or for a new look at a known gateway.
type TrustArgs struct {
	Gateway string `json:"gateway"`
	Pin     string `json:"pin,omitempty"`
	// Name of the profile; empty takes the gateway's domain.
	Name profile.Name `json:"name,omitempty"`
	// Accept takes over what has changed; without it changes are only told.
	Accept bool `json:"accept,omitempty"`
}

// TrustResult says what was found and whether it was saved.
type TrustResult struct {
	Profile     profile.Name `json:"profile"`
	Gateway     string       `json:"gateway"`
	Fingerprint string       `json:"fingerprint"` // of the gateway's authority
	Pinned      bool         `json:"pinned"`      // by the person; else WebPKI
	Issuer      wire.Issuer  `json:"issuer"`
	TrustDomain string       `json:"trustDomain"`
	New         bool         `json:"new"`
	Saved       bool         `json:"saved"`
	Changes     []string     `json:"changes,omitempty"`
	// Was is the profile that commands without --profile meant until now, where
	// that was another one.
	Was profile.Name `json:"was,omitempty"`
}

// LoginArgs asks for a login now, whatever there is.
type LoginArgs struct {
	DeviceCode bool `json:"deviceCode,omitempty"`
	// Offered says that the person has not asked for the code by name.
	Offered bool `json:"offered,omitempty"`
	// Force logs in although somebody is.
	Force bool `json:"force,omitempty"`
}

func (a LoginArgs) deviceCode() session.DeviceCode {
	switch {
	case !a.DeviceCode:
		return session.DeviceCodeNever
	case a.Offered:
		return session.DeviceCodeIfAllowed
	}
	return session.DeviceCodeOnly
}

// LoginResult is the session after it.
type LoginResult struct {
	Already bool           `json:"already"`
	Status  session.Status `json:"status"`
	Was     profile.Name   `json:"was,omitempty"` // as in TrustResult
}

// LogoutArgs asks for the end.
type LogoutArgs struct {
	// Forget also drops the profile and the device key.
	Forget bool `json:"forget,omitempty"`
}

// LogoutResult tells how it went.
type LogoutResult struct {
	session.Farewell
	Profile profile.Name `json:"profile"`
}

// Cleaning is what the agent asks of a client that logs out: the files are the
// person's, and written by his command.
type Cleaning struct {
	Profile profile.Name `json:"profile"`
	Files   []string     `json:"files"`
}

// ClusterArgs names one.
type ClusterArgs struct {
	Cluster wire.ClusterName `json:"cluster"`
}

// AccessArgs asks for what a kubeconfig needs. The port is bound and proven to be
// ours before the answer.
type AccessArgs struct {
	// File is where it will be written; logout cleans it.
	File string `json:"file"`
	// Clusters to write; none means all that are not hidden.
	Clusters []wire.ClusterName `json:"clusters,omitempty"`
}

// AccessResult is what a kubeconfig needs.
type AccessResult struct {
	Profile  profile.Name  `json:"profile"`
	Domain   string        `json:"domain"`
	Port     int           `json:"port"`
	Secret   string        `json:"secret"`
	Clusters []AccessEntry `json:"clusters"`
	// Hidden ones are kept up to date where they stand already.
	Hidden []AccessEntry `json:"hidden,omitempty"`
	// Refused are there and cannot be vouched for. It is only filled when no
	// cluster was named.
	Refused []AccessRefusal `json:"refused,omitempty"`
	// Kubeconfigs are all files that hold contexts of the profile.
	Kubeconfigs []string `json:"kubeconfigs,omitempty"`
}

// AccessRefusal is a cluster that is left out, and why.
type AccessRefusal struct {
	Name wire.ClusterName `json:"name"`
	Why  fault.Fault      `json:"why"`
}

// AccessEntry is one cluster, with the pinned authority.
type AccessEntry struct {
	Name wire.ClusterName `json:"name"`
	Host string           `json:"host"`
	CA   string           `json:"ca"`
}

// TunnelArgs opens or closes a port beside the one of the kubeconfigs.
type TunnelArgs struct {
	// Open is a secretless port for this user's processes; without it the port
	// demands the profile's secret.
	Open    bool             `json:"open,omitempty"`
	Close   bool             `json:"close,omitempty"`
	Cluster wire.ClusterName `json:"cluster,omitempty"`
	Port    int              `json:"port,omitempty"`
	Listen  string           `json:"listen,omitempty"` // IP:PORT
	Remote  bool             `json:"remote,omitempty"` // allow other machines
}

// TunnelResult lists the ports.
type TunnelResult struct {
	Profile profile.Name `json:"profile"`
	Ports   []PortStatus `json:"ports"`
	// Opened is the port that was asked for.
	Opened int `json:"opened,omitempty"`
	// Secret of the profile, for `tunnel --env`.
	Secret string `json:"secret,omitempty"`
}

// PortStatus is one listener.
type PortStatus struct {
	Address string `json:"address"`
	Open    bool   `json:"open"` // without a secret, for this user only
	// Problem is why the port of the kubeconfigs is not served.
	Problem string `json:"problem,omitempty"`
}

// StatusResult is the agent and its sessions.
type StatusResult struct {
	Version  string           `json:"version"`
	Protocol int              `json:"protocol"`
	PID      int              `json:"pid"`
	Started  time.Time        `json:"started"`
	Current  profile.Name     `json:"current,omitempty"`
	Ports    []PortStatus     `json:"ports,omitempty"`
	Sessions []session.Status `json:"sessions"`
}

// DeviceResult is this device, as far as known.
type DeviceResult struct {
	ID         wire.DeviceID   `json:"id"`
	Thumbprint wire.Thumbprint `json:"thumbprint"`
	Tier       string          `json:"tier"`
	// Gateway is what the gateway knows of it; nil when nobody is logged in.
	Gateway *wire.DeviceState `json:"gateway,omitempty"`
}

// RepinArgs asks what a cluster shows, or accepts that.
type RepinArgs struct {
	Cluster wire.ClusterName `json:"cluster"`
	// Accept is what the person has seen and agreed to; nil only shows it.
	Accept *session.ClusterIdentity `json:"accept,omitempty"`
}

// RepinResult is a cluster's identity as it is pinned and as it is shown.
type RepinResult struct {
	Old session.ClusterIdentity `json:"old"`
	New session.ClusterIdentity `json:"new"`
}
