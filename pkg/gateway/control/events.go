package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// pingEvery keeps a line moving, so that both ends notice when it is dead.
	pingEvery = 15 * time.Second
	// eventTimeout is how long a laptop may take to read one event.
	eventTimeout = 10 * time.Second
)

// events streams JSON lines for as long as the stream lives: the catalogue at
// the start and whenever it has changed, roles that were lost, the end of the
// session, and a ping when nothing else is to be said.
func (c *Control) events(w http.ResponseWriter, r *http.Request) {
	p := peerOf(r)
	e := &eventWriter{c: c, w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/json-seq")
	w.Header().Set("Cache-Control", "no-store")
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		// Taken before looking, so that no change falls between.
		changed := *c.changed.Load()
		if err := e.look(p); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-c.draining:
			return
		case <-p.ended:
			_ = e.end(p)
			return
		case <-changed:
		case <-ping.C:
			if e.write(wire.Event{Kind: wire.EventPing}) != nil {
				return
			}
		}
	}
}

// eventWriter remembers what one laptop was told.
type eventWriter struct {
	c       *Control
	w       http.ResponseWriter
	control *http.ResponseController
	told    []wire.Cluster
	roles   []wire.Role
}

// look tells what has changed since it looked last.
func (e *eventWriter) look(p *peer) error {
	clusters, roles, refusal := e.c.catalogue(p.identity)
	if refusal != nil {
		_ = e.write(e.session(p, ended(refusal)))
		return refusal
	}
	var lost []wire.Role
	for _, role := range e.roles {
		if !slices.Contains(roles, role) {
			lost = append(lost, role)
		}
	}
	e.roles = roles
	if len(lost) > 0 {
		if err := e.write(e.session(p, wire.SessionChange{Removed: lost})); err != nil {
			return err
		}
	}
	if e.told != nil && reflect.DeepEqual(e.told, clusters) {
		return nil
	}
	e.told = clusters
	return e.write(wire.Event{Kind: wire.EventClusters, Clusters: clusters})
}

// end tells why the session is over.
func (e *eventWriter) end(p *peer) error {
	p.mu.Lock()
	cause := p.cause
	p.mu.Unlock()
	return e.write(e.session(p, ended(cause)))
}

func ended(why *wire.Refusal) wire.SessionChange {
	return wire.SessionChange{Ended: true, Reason: why.Message, Cause: why.Reason, Hint: why.Hint}
}

func (e *eventWriter) session(p *peer, change wire.SessionChange) wire.Event {
	change.Session, change.Epoch = p.identity.Session, e.c.o.Store.Snapshot().Epoch
	return wire.Event{Kind: wire.EventSession, Session: &change}
}

func (e *eventWriter) write(event wire.Event) error {
	event.Time = e.c.now().UTC()
	line, err := json.Marshal(event)
	if err != nil {
		return err
	}
	// In HTTP/2 a deadline that passes resets the stream, whether anything is
	// being written or not: it must be taken back.
	if err := e.control.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil {
		return err
	}
	_, err = e.w.Write(append(line, '\n'))
	return errors.Join(err, e.control.Flush(), e.control.SetWriteDeadline(time.Time{}))
}

// logout ends the session: everything of it, everywhere, for good.
func (c *Control) logout(w http.ResponseWriter, r *http.Request) {
	p := peerOf(r)
	record := p.record(audit.EventLogout)
	// The laptop may be gone before both are written; the session ends all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
	defer cancel()
	if refusal := c.allowed("logout", record); refusal != nil {
		edge.WriteRefusal(w, refusal)
		return
	}
	if err := c.endSession(ctx, p); err != nil {
		edge.WriteRefusal(w, c.refused("logout", record, refuseStore(), err))
		return
	}
	c.o.Metrics.Login("logout", "")
	w.WriteHeader(http.StatusNoContent)
}

func (c *Control) endSession(ctx context.Context, p *peer) error {
	by := string(p.identity.User.Name)
	var faults []error // one that cannot be written is in force, and keeps not the other out
	for _, spec := range []v1alpha1.RevocationSpec{
		{Session: string(p.identity.Session), Reason: "logged out"},
		{Certificate: p.identity.Serial, Reason: "logged out"},
	} {
		_, err := c.o.Store.Revoke(ctx, spec, by)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return c.markEnded(ctx, p.identity.Session)
}
