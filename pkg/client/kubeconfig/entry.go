package kubeconfig

import (
	"encoding/base64"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Entry is one cluster as kubeconfig shall know it.
type Entry struct {
	// Context is the wished name: the cluster's. Where that name belongs to
	// somebody else the context is called Host.
	Context string
	// Host is CLUSTER.DOMAIN; it also names the cluster and the user entry.
	Host string
	CA   string // PEM
	// ProxyURL is the agent's tunnel with the profile's secret.
	ProxyURL string
	// Command is the absolute path of kubectl-zt: kubectl run from a desktop has
	// another PATH than the shell that wrote this file.
	Command string
	Profile string
	Cluster string
}

const installHint = "kubectl-zt is not where it was when this context was written: install it again (kubectl krew install zt) and run: kubectl zt kubeconfig"

// args of the exec plugin. ownedBy reads them back.
func (e Entry) args() []string {
	return []string{"credential", "--profile", e.Profile, "--cluster", e.Cluster}
}

// Exec is the stanza of a user. interactiveMode IfAvailable: a login may open a
// browser when a person sits at the terminal. provideClusterInfo lets the plugin
// see for which server it is asked.
type execStanza struct {
	APIVersion         string   `yaml:"apiVersion"`
	Command            string   `yaml:"command"`
	Args               []string `yaml:"args"`
	InstallHint        string   `yaml:"installHint"`
	InteractiveMode    string   `yaml:"interactiveMode"`
	ProvideClusterInfo bool     `yaml:"provideClusterInfo"`
}

func (e Entry) exec() execStanza {
	return execStanza{
		APIVersion: "client.authentication.k8s.io/v1", Command: e.Command, Args: e.args(),
		InstallHint: installHint, InteractiveMode: "IfAvailable", ProvideClusterInfo: true,
	}
}

// setCluster, setUser and setContext change the fields that zt means something
// by and leave the person's own (namespace, extensions, disable-compression).
// They report whether anything changed.
func (e Entry) setCluster(item node) bool {
	m, changed := child(item, "cluster")
	for _, kv := range [][2]string{
		{"server", "https://" + e.Host},
		{"certificate-authority-data", base64.StdEncoding.EncodeToString([]byte(e.CA))},
		{"proxy-url", e.ProxyURL},
	} {
		changed = set(m, kv[0], scalar(kv[1])) || changed
	}
	// Each of these would bend what the three above say.
	for _, key := range []string{"certificate-authority", "insecure-skip-tls-verify", "tls-server-name"} {
		changed = drop(m, key) || changed
	}
	return changed
}

func (e Entry) setUser(item node) bool {
	m, changed := child(item, "user")
	var stanza yaml.Node
	if stanza.Encode(e.exec()) != nil {
		return changed
	}
	changed = set(m, "exec", &stanza) || changed
	for i := 0; i+1 < len(m.Content); {
		switch key := m.Content[i].Value; key {
		case "exec", "extensions":
			i += 2
		default: // token, client-certificate, auth-provider…: they would win over exec
			changed = drop(m, key) || changed
		}
	}
	return changed
}

func (e Entry) setContext(item node) bool {
	m, changed := child(item, "context")
	changed = set(m, "cluster", scalar(e.Host)) || changed
	return set(m, "user", scalar(e.Host)) || changed
}

// ownedBy reports for which profile a user entry runs kubectl-zt; empty when it
// does not. The command's directory does not count: the plugin may have moved.
func ownedBy(item node) string {
	exec := lookup(lookup(item, "user"), "exec")
	var stanza execStanza
	if exec == nil || exec.Decode(&stanza) != nil {
		return ""
	}
	if strings.TrimSuffix(filepath.Base(stanza.Command), ".exe") != "kubectl-zt" || !slices.Contains(stanza.Args, "credential") {
		return ""
	}
	if i := slices.Index(stanza.Args, "--profile"); i >= 0 && i+1 < len(stanza.Args) {
		return stanza.Args[i+1]
	}
	return ""
}

// proxiedFor is the profile whose tunnel a cluster entry goes through. It tells a
// cluster of ours whose user the person has deleted.
func proxiedFor(item node) string {
	proxy := lookup(lookup(item, "cluster"), "proxy-url")
	if proxy == nil {
		return ""
	}
	u, err := url.Parse(proxy.Value)
	if err != nil || u.Hostname() != "127.0.0.1" {
		return ""
	}
	return u.User.Username()
}
