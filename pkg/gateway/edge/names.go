package edge

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/kube-zt/zt/pkg/wire"
)

// names knows what the gateway answers to. All comparison is exact, on lower
// case; nothing is resolved.
type names struct {
	gateway map[string]bool
	tunnel  string
	// suffix is ".DOMAIN", directSuffix ".direct.DOMAIN".
	suffix, directSuffix string
}

func newNames(domain string, aliases []string) names {
	domain = strings.ToLower(domain)
	n := names{
		gateway:      map[string]bool{wire.GatewayLabel + "." + domain: true},
		tunnel:       wire.TunnelLabel + "." + domain,
		suffix:       "." + domain,
		directSuffix: "." + wire.DirectLabel + "." + domain,
	}
	for _, alias := range aliases {
		n.gateway[strings.ToLower(alias)] = true
	}
	return n
}

// regime is what a server name selects.
type regime int

const (
	regimeGateway regime = iota
	regimeTunnel
	regimeDirect
	regimeUnknown
)

// choose maps the server name of a hello to a regime. Without a name it is
// gw.DOMAIN: probes, and laptops that were given an address.
func (n names) choose(serverName string) (regime, wire.ClusterName) {
	name := strings.ToLower(serverName)
	switch {
	case name == "" || n.gateway[name]:
		return regimeGateway, ""
	case name == n.tunnel:
		return regimeTunnel, ""
	}
	if label, ok := strings.CutSuffix(name, n.directSuffix); ok && clusterLabel.MatchString(label) {
		return regimeDirect, wire.ClusterName(label)
	}
	return regimeUnknown, ""
}

// clusterLabel is an RFC 1123 label.
var clusterLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// target is what a CONNECT asks for.
type target struct {
	control bool
	cluster wire.ClusterName
}

// parseTarget reads the authority of a CONNECT. Only CLUSTER.DOMAIN:443 and
// control:443, spelt exactly so, are targets: the port is text that must equal
// "443", never a number, so "+443", "0443" and "https" are none.
//
// What has no form of host:port is malformed; what has one but is not a name
// of ours is answered exactly like a cluster that does not exist, whether it
// is an address, the gateway itself, or a name elsewhere (V078, V090).
func (n names) parseTarget(authority string) (target, *wire.Refusal) {
	host, port, ok := cutPort(authority)
	if !ok {
		return target{}, wire.Refuse(wire.ReasonMalformed, "", "CONNECT wants HOST:443")
	}
	if port != "443" {
		return target{}, refusePort()
	}
	if host == wire.ControlName {
		return target{control: true}, nil
	}
	label, ok := strings.CutSuffix(host, n.suffix)
	if !ok || !clusterLabel.MatchString(label) || reserved(label) {
		return target{}, UnknownCluster()
	}
	return target{cluster: wire.ClusterName(label)}, nil
}

// cutPort splits HOST:PORT, where HOST may be an address in brackets. It does
// not look at what the two mean.
func cutPort(authority string) (host, port string, ok bool) {
	i := strings.LastIndexByte(authority, ':')
	if i <= 0 || i == len(authority)-1 {
		return "", "", false
	}
	host, port = authority[:i], authority[i+1:]
	if strings.HasPrefix(host, "[") {
		inner, closed := strings.CutSuffix(host[1:], "]")
		if _, err := netip.ParseAddr(inner); !closed || err != nil {
			return "", "", false
		}
		return host, port, true
	}
	return host, port, !strings.ContainsAny(host, ":[]/@ ")
}

func reserved(label string) bool {
	for _, name := range wire.ReservedClusterNames {
		if label == string(name) {
			return true
		}
	}
	return false
}

func refusePort() *wire.Refusal {
	return &wire.Refusal{Reason: wire.ReasonClusterUnknown, Message: "only port 443 can be reached through the tunnel"}
}

// UnknownCluster is the one answer for what does not exist, must not be seen,
// or is not a cluster at all.
func UnknownCluster() *wire.Refusal {
	return wire.Refuse(wire.ReasonClusterUnknown, "kubectl zt clusters", "no such cluster")
}
