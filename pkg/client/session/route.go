package session

import (
	"context"
	"slices"
	"strings"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/wire"
)

var _ tunnel.Route = (*Session)(nil)

// clusterOf is the cluster in CLUSTER.DOMAIN, or empty.
func clusterOf(host, domain string) wire.ClusterName {
	label, ok := strings.CutSuffix(host, "."+domain)
	if !ok || label == "" || strings.Contains(label, ".") || slices.Contains(wire.ReservedClusterNames, wire.ClusterName(label)) {
		return ""
	}
	return wire.ClusterName(label)
}

// Target refuses what is not a cluster of this profile without asking anybody,
// and says whether the way to it can be promised.
func (s *Session) Target(host string) (tunnel.Target, error) {
	p := s.profile.Load()
	n := clusterOf(host, p.Domain)
	if n == "" {
		return tunnel.Target{}, fault.New(fault.ExitRefused, "kubectl zt clusters", "%s is not a cluster of %s", host, p.Domain)
	}
	// Read first: what changes while we look is a change after this target.
	t := tunnel.Target{Host: host, Epoch: s.epoch.Load(), Audience: string(p.Clusters[n].UID)}
	l, _ := s.current()
	if l == nil {
		return t, nil
	}
	c, found, known := l.catalogue.get(n)
	if known && !found {
		return tunnel.Target{}, unknownCluster(n)
	}
	if err := pinned(p, c); found && err != nil {
		return tunnel.Target{}, err
	}
	t.Optimistic = known && t.Audience != "" && c.State == wire.StateReachable && c.Access != "Disabled" &&
		l.identity.Load().lasts(s.clock.Now()) && l.outer.Up()
	return t, nil
}

// Open opens a stream to the target. Where nothing could be promised it waits:
// for a valid certificate, for the catalogue, for the connection and for the
// edge's answer.
func (s *Session) Open(ctx context.Context, t *tunnel.Target) (*h2conn.Stream, error) {
	authority := t.Host + ":443"
	if t.Optimistic {
		l, _ := s.current()
		if l == nil {
			return nil, s.notLoggedIn()
		}
		return l.outer.Connect(ctx, authority)
	}
	l, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	if t.Audience == "" {
		if err := l.catalogue.wait(ctx); err != nil {
			return nil, err
		}
		again, err := s.Target(t.Host)
		if err != nil {
			return nil, err
		}
		if t.Audience = again.Audience; t.Audience == "" {
			return nil, unknownCluster(clusterOf(t.Host, s.profile.Load().Domain))
		}
	}
	stream, err := l.outer.Open(ctx, authority)
	if err != nil && !l.accepted() {
		if l, err = s.ready(ctx); err == nil {
			stream, err = l.outer.Open(ctx, authority)
		}
	}
	return stream, err
}

// Proof signs for a stream with the certificate of the moment.
func (s *Session) Proof(audience string, hello []byte) (string, error) {
	l, _ := s.current()
	if l == nil {
		return "", s.notLoggedIn()
	}
	return s.proofOf(l)(audience, hello)
}
