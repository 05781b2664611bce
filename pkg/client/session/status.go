package session

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

// Status is what a person may ask about his session. Its times are this
// machine's.
type Status struct {
	Profile string `json:"profile"`
	Gateway string `json:"gateway"`
	Domain  string `json:"domain"`
	Issuer  string `json:"issuer"`

	LoggedIn bool           `json:"loggedIn"`
	Why      string         `json:"why,omitempty"` // when not logged in, if there is a reason
	User     wire.Username  `json:"user,omitempty"`
	Session  wire.SessionID `json:"session,omitempty"`
	// Certificate ends and is renewed before; the session ends for good.
	CertificateUntil time.Time `json:"certificateUntil,omitzero"`
	SessionUntil     time.Time `json:"sessionUntil,omitzero"`

	Device wire.DeviceID `json:"device"`
	// DeviceTier is the session's where there is one, else that of the key.
	DeviceTier string `json:"deviceTier"`

	// Edge is "connected", "not connected", or why not.
	Edge        string `json:"edge,omitempty"`
	Connections int    `json:"connections,omitempty"`
	Streams     int    `json:"streams,omitempty"`
	Control     string `json:"control,omitempty"`
	Clusters    int    `json:"clusters"`
	ClockSkew   string `json:"clockSkew,omitempty"`
}

// Status asks nobody.
func (s *Session) Status() Status {
	p := s.profile.Load()
	st := Status{
		Profile: string(p.Name), Gateway: p.Gateway, Domain: p.Domain, Issuer: string(p.OIDC.Issuer),
		Device: s.key.ID, DeviceTier: s.key.Tier,
	}
	if off := s.clock.skew(); off.Abs() > worthSaying {
		st.ClockSkew = "this computer is " + ahead(-off) + " the gateway"
	}
	l, _ := s.current()
	if l == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.over != nil {
			st.Why = s.over.What
		}
		return st
	}
	id := l.identity.Load()
	st.LoggedIn = true
	st.User, st.Session = id.who.User.Name, id.who.Session
	st.DeviceTier = cmp.Or(id.issued.Tier, st.DeviceTier)
	st.CertificateUntil = s.clock.here(id.who.NotAfter)
	if !id.issued.SessionEnd.IsZero() {
		st.SessionUntil = s.clock.here(id.issued.SessionEnd)
	}
	st.Connections, st.Streams = l.outer.Links()
	st.Edge = "not connected"
	if l.outer.Up() {
		st.Edge = "connected"
	}
	st.Control = "connected"
	if text := l.heard.Load(); text != nil {
		st.Control = *text
	}
	st.Clusters = len(l.catalogue.list())
	return st
}

// LoggedIn reports whether there is a session, valid or renewable.
func (s *Session) LoggedIn() bool {
	l, _ := s.current()
	return l != nil
}

// Valid reports whether there is a session whose certificate can be presented.
func (s *Session) Valid() bool {
	l, _ := s.current()
	return l != nil && l.identity.Load().valid(s.clock.Now())
}

// Ready is nil when a token could be asked for now.
func (s *Session) Ready(ctx context.Context) error {
	_, err := s.ready(ctx)
	return err
}

// Clusters is the catalogue of this moment: a person who asks may have been given
// a role a second ago. Where control does not answer, what it pushed last serves.
func (s *Session) Clusters(ctx context.Context) ([]wire.Cluster, error) {
	l, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var now wire.ClusterList
	err = l.control.call(ctx, http.MethodGet, wire.PathClusters, nil, &now)
	if why, over := ended(err); over {
		s.end(l, why)
		return nil, why
	}
	if err == nil {
		s.know(l, now.Clusters)
		return l.catalogue.list(), nil
	}
	if l.catalogue.wait(ctx) != nil {
		return nil, l.unheard()
	}
	known := l.catalogue.list()
	if l.heard.Load() == nil {
		return known, nil // what changes is pushed
	}
	for i := range known {
		known[i].State = wire.StateUnknown
	}
	return known, nil
}

// Cluster is one of them, with its pin held against it.
func (s *Session) Cluster(ctx context.Context, n wire.ClusterName) (wire.Cluster, error) {
	list, err := s.Clusters(ctx)
	if err != nil {
		return wire.Cluster{}, err
	}
	for _, c := range list {
		if c.Name == n {
			return c, s.Check(c)
		}
	}
	return wire.Cluster{}, unknownCluster(n)
}

// Check holds a cluster of the catalogue against its pin; it asks nobody.
func (s *Session) Check(c wire.Cluster) error {
	p := s.profile.Load()
	if !validCluster(c, p.Domain) {
		return fault.New(fault.ExitUntrusted, "ask the gateway's administrator", "the gateway describes cluster %s badly", string(c.Name))
	}
	return pinned(p, c)
}

// Device asks control what it knows of this device.
func (s *Session) Device(ctx context.Context) (wire.DeviceState, error) {
	var state wire.DeviceState
	l, err := s.ready(ctx)
	if err != nil {
		return state, err
	}
	return state, l.control.call(ctx, http.MethodGet, wire.PathDevice, nil, &state)
}

// NoteKubeconfig remembers a file that holds contexts of this profile, so that
// logout can clean it.
func (s *Session) NoteKubeconfig(path string) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	p := s.profile.Load()
	if path == "" || slices.Contains(p.Kubeconfigs, path) {
		return nil
	}
	next := p.Clone()
	next.Kubeconfigs = append(next.Kubeconfigs, path)
	if err := s.deps.Home.Save(next); err != nil {
		return err
	}
	s.profile.Store(next)
	return nil
}
