package session

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// catalogue is what control last pushed about the clusters that this person may
// see, the hidden ones among them. It is complete: what is not in it is not
// there for him.
type catalogue struct {
	mu       sync.Mutex
	ready    chan struct{} // closed by the first push
	clusters map[wire.ClusterName]wire.Cluster
}

func newCatalogue() *catalogue { return &catalogue{ready: make(chan struct{})} }

// set reports whether anything is different now.
func (c *catalogue) set(list []wire.Cluster) bool {
	m := make(map[wire.ClusterName]wire.Cluster, len(list))
	for _, cl := range list {
		m[cl.Name] = cl
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clusters == nil {
		close(c.ready)
	} else if reflect.DeepEqual(c.clusters, m) {
		return false
	}
	c.clusters = m
	return true
}

// get returns a cluster; known is false until the first push.
func (c *catalogue) get(n wire.ClusterName) (cl wire.Cluster, found, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl, found = c.clusters[n]
	return cl, found, c.clusters != nil
}

func (c *catalogue) list() []wire.Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.clusters), func(a, b wire.Cluster) int {
		return strings.Compare(string(a.Name), string(b.Name))
	})
}

// wait waits for the first push. What is there already is had also by who has no
// time left.
func (c *catalogue) wait(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	default:
	}
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return fault.New(fault.ExitUnreachable, "kubectl zt status", "the gateway has not said which clusters there are")
	}
}

// pinned holds a cluster against what it was first seen with. The CA is the
// cluster's own; a new one is either a cluster made anew or somebody in between.
func pinned(p *profile.Profile, c wire.Cluster) error {
	pin, seen := p.Clusters[c.Name]
	if !seen || (pin.UID == c.UID && strings.TrimSpace(pin.CA) == strings.TrimSpace(c.CA)) {
		return nil
	}
	return fault.New(fault.ExitUntrusted, "if its administrator confirms it: kubectl zt trust --cluster "+string(c.Name),
		"cluster %s shows another identity than before: %s, was %s", string(c.Name), orNone(Fingerprint(c.CA)), orNone(Fingerprint(pin.CA)))
}

// know takes over what control says of the clusters.
func (s *Session) know(l *live, list []wire.Cluster) {
	s.learn(list)
	if l.catalogue.set(list) {
		s.epoch.Add(1)
	}
}

// learn pins the clusters that are seen for the first time and saves the profile.
func (s *Session) learn(list []wire.Cluster) {
	s.saving.Lock()
	defer s.saving.Unlock()
	p := s.profile.Load()
	next := p.Clone()
	for _, c := range list {
		if _, seen := next.Clusters[c.Name]; seen || !validCluster(c, p.Domain) {
			continue
		}
		next.Clusters[c.Name] = profile.ClusterPin{UID: c.UID, CA: c.CA}
	}
	if len(next.Clusters) == len(p.Clusters) {
		return
	}
	if err := s.deps.Home.Save(next); err != nil {
		s.deps.Log.Warn("profile not saved", "error", fault.Of(err).What)
	}
	s.profile.Store(next)
}

// validCluster refuses an entry that could not be reached or would shadow a name
// that means something else.
func validCluster(c wire.Cluster, domain string) bool {
	if len(c.Name) == 0 || len(c.Name) > 63 || slices.Contains(wire.ReservedClusterNames, c.Name) || c.UID == "" {
		return false
	}
	for i := range len(c.Name) {
		ch := c.Name[i]
		if (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && (ch != '-' || i == 0 || i == len(c.Name)-1) {
			return false
		}
	}
	ca, err := trust.ParseCertificates([]byte(c.CA))
	return err == nil && ca[0].IsCA && c.Server == "https://"+string(c.Name)+"."+domain
}

// ClusterIdentity is what a cluster is known by.
type ClusterIdentity struct {
	Fingerprint string          `json:"fingerprint"` // of its authority; empty when it was never seen
	UID         wire.ClusterUID `json:"uid"`
}

// Repin shows a cluster's pinned identity and the one that it has now, and takes
// over the latter where it is exactly what the person has accepted.
func (s *Session) Repin(ctx context.Context, n wire.ClusterName, accept *ClusterIdentity) (old, now ClusterIdentity, err error) {
	l, err := s.ready(ctx)
	if err != nil {
		return old, now, err
	}
	if err := l.catalogue.wait(ctx); err != nil {
		return old, now, err
	}
	c, found, _ := l.catalogue.get(n)
	if !found {
		return old, now, unknownCluster(n)
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	next := s.profile.Load().Clone()
	old = ClusterIdentity{Fingerprint(next.Clusters[n].CA), next.Clusters[n].UID}
	now = ClusterIdentity{Fingerprint(c.CA), c.UID}
	switch {
	case accept == nil:
		return old, now, nil
	case *accept != now:
		return old, now, fault.New(fault.ExitUntrusted, "kubectl zt trust --cluster "+string(n),
			"cluster %s shows yet another identity than the accepted one: %s", string(n), orNone(now.Fingerprint))
	}
	next.Clusters[n] = profile.ClusterPin{UID: c.UID, CA: c.CA}
	if err := s.deps.Home.Save(next); err != nil {
		return old, now, err
	}
	s.profile.Store(next)
	l.tokens.drop(n)
	return old, now, nil
}

func unknownCluster(n wire.ClusterName) error {
	return fault.New(fault.ExitRefused, "kubectl zt clusters", "there is no cluster %q for you", string(n)).Because(wire.ReasonClusterUnknown)
}
