// Package execcred speaks client.authentication.k8s.io/v1, the protocol between
// client-go and its exec plugins, in plain structs: the generated types would
// cost every kubectl a millisecond of package initialisation.
//
// It also holds the answer to a hostile kubeconfig (V016): a token is rendered
// only for a server that is, by name, by authority and by proxy, the cluster
// that the profile knows. A caller that does not say which server it is about to
// call gets nothing.
package execcred

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// APIVersion is the only one that is spoken.
const APIVersion = "client.authentication.k8s.io/v1"

const kind = "ExecCredential"

// EnvInfo is the variable in which client-go describes its call.
const EnvInfo = "KUBERNETES_EXEC_INFO"

// Info is what the caller says about itself.
type Info struct {
	// Present is false when the variable was not set: a person ran the command.
	Present bool
	// Interactive is client-go's verdict from interactiveMode and its own stdin.
	Interactive bool
	// Cluster is nil unless the kubeconfig sets provideClusterInfo.
	Cluster *Cluster
}

// Cluster is the server that the caller is about to call.
type Cluster struct {
	Server        string `json:"server"`
	TLSServerName string `json:"tls-server-name"`
	Insecure      bool   `json:"insecure-skip-tls-verify"`
	CA            []byte `json:"certificate-authority-data"` // PEM
	ProxyURL      string `json:"proxy-url"`
}

// Parse reads the value of KUBERNETES_EXEC_INFO; empty means that it is not set.
func Parse(raw string) (Info, error) {
	if raw == "" {
		return Info{}, nil
	}
	var doc struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Interactive bool     `json:"interactive"`
			Cluster     *Cluster `json:"cluster"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(raw), &doc); err != nil {
		return Info{}, fault.New(fault.ExitFailed, "kubectl zt kubeconfig", "%s cannot be read: %v", EnvInfo, err)
	}
	if doc.APIVersion != APIVersion || doc.Kind != kind {
		return Info{}, fault.New(fault.ExitFailed, "kubectl zt kubeconfig", "%s is %s %s, want %s", EnvInfo, doc.APIVersion, doc.Kind, APIVersion)
	}
	return Info{Present: true, Interactive: doc.Spec.Interactive, Cluster: doc.Spec.Cluster}, nil
}

// Expected is what the profile knows of the cluster.
type Expected struct {
	Profile string
	Host    string // CLUSTER.DOMAIN
	CA      string // PEM, pinned
	Ports   []int  // loopback ports on which the agent listens
}

// Check refuses a caller whose server is not the expected one.
func (i Info) Check(e Expected) error {
	const repair = "kubectl zt kubeconfig"
	if !i.Present {
		return nil
	}
	c := i.Cluster
	if c == nil {
		return fault.New(fault.ExitUntrusted, repair, "the kubeconfig does not say which server the token is for (provideClusterInfo)")
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Hostname() != e.Host || (u.Port() != "" && u.Port() != "443") {
		return fault.New(fault.ExitUntrusted, repair, "the kubeconfig's server %s is not %s: no token leaves for it", c.Server, e.Host)
	}
	if c.Insecure || (c.TLSServerName != "" && c.TLSServerName != e.Host) {
		return fault.New(fault.ExitUntrusted, repair, "the kubeconfig does not verify that the server is %s: no token leaves for it", e.Host)
	}
	if !sameCA(c.CA, e.CA) {
		return fault.New(fault.ExitUntrusted, repair, "the kubeconfig trusts another authority for %s than the pinned one: no token leaves for it", e.Host)
	}
	return checkProxy(c.ProxyURL, e, repair)
}

// checkProxy notices a port that the agent no longer holds, before kubectl sends
// the proxy's secret to whoever holds it now: the plugin runs before the dial.
// No proxy-url is fine, the person may use HTTPS_PROXY.
func checkProxy(raw string, e Expected, repair string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" {
		return fault.New(fault.ExitUntrusted, repair, "the kubeconfig's proxy-url is not zt's tunnel")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil || !addr.IsLoopback() || u.User.Username() != e.Profile {
		return fault.New(fault.ExitUntrusted, repair, "the kubeconfig's proxy-url is not zt's tunnel of profile %s", e.Profile)
	}
	for _, p := range e.Ports {
		if u.Port() == strconv.Itoa(p) {
			return nil
		}
	}
	return fault.New(fault.ExitUntrusted, repair, "the kubeconfig's proxy port %s is stale: zt's tunnel listens elsewhere now", u.Port())
}

// sameCA compares certificates, not their wrapping.
func sameCA(got []byte, want string) bool {
	a, rest := pem.Decode(got)
	b, _ := pem.Decode([]byte(want))
	if more, _ := pem.Decode(rest); more != nil {
		return false
	}
	return a != nil && b != nil && bytes.Equal(a.Bytes, b.Bytes)
}

// Render is the document for stdout. expires is in this machine's clock.
func Render(token string, expires time.Time) ([]byte, error) {
	type status struct {
		Expires string `json:"expirationTimestamp"`
		Token   string `json:"token"`
	}
	doc := struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Spec       struct{} `json:"spec"`
		Status     status   `json:"status"`
	}{APIVersion: APIVersion, Kind: kind, Status: status{expires.UTC().Format(time.RFC3339), token}}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return append(b, '\n'), nil
}
