package agent

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

// heed takes over how a person's shell gets out to the network: the one that
// started the agent may have known no proxy, or one that is gone. An empty
// environment counts as much as a full one, else a proxy could never be taken
// back.
func (a *Agent) heed(env tunnel.Environment) {
	if a.loops(env.HTTPSProxy) {
		return // it says nothing about the way out
	}
	if old := a.env.Swap(&env); *old == env {
		return
	}
	a.log.Info("the way out to the network has changed", "proxy", env.HTTPSProxy != "")
	a.mu.Lock()
	sessions := make([]*resident, 0, len(a.sessions))
	for _, r := range a.sessions {
		sessions = append(sessions, r)
	}
	a.mu.Unlock()
	for _, r := range sessions {
		r.Reroute()
	}
}

// loops reports whether a proxy is this machine's tunnel: one of its ports, or a
// profile's name on an address of this machine, whose port may be of yesterday. A
// shell has it after `eval "$(kubectl zt tunnel --env)"`.
func (a *Agent) loops(proxy string) bool {
	u, err := url.Parse(proxy)
	if err != nil || proxy == "" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if (err != nil || !ip.IsLoopback()) && u.Hostname() != "localhost" {
		return false
	}
	if port, err := strconv.Atoi(u.Port()); err == nil && slices.Contains(a.ports.own(), port) {
		return true
	}
	names, err := a.cfg.Home.List()
	return err == nil && slices.Contains(names, profile.Name(u.User.Username()))
}
