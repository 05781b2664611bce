package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// device is what policy knows of a session's device.
func deviceOf(snapshot *store.Snapshot, record store.SessionRecord) wire.Device {
	d, _ := snapshot.Device(record.Device)
	ownership := d.Spec.Ownership
	if ownership == "" {
		ownership = v1alpha1.OwnershipPersonal
	}
	device := wire.Device{
		ID: record.Device, Thumbprint: record.Thumbprint,
		Tier: record.Tier, Ownership: string(ownership), Approved: approved(d), Platform: d.Status.Platform,
	}
	if record.Tier == string(v1alpha1.TierNone) {
		// The login did not prove to be at this device, so none of the device's
		// merits are the session's.
		device.Ownership, device.Approved, device.Platform = string(v1alpha1.OwnershipPersonal), false, ""
	}
	return device
}

// roles of a session on a snapshot.
func (c *Control) roles(snapshot *store.Snapshot, record store.SessionRecord) []wire.Role {
	subject := policy.Subject{User: record.User, Groups: record.Groups, Device: deviceOf(snapshot, record)}
	if record.GroupsUnknown {
		subject.Groups = nil
	}
	return snapshot.Policy.Roles(subject)
}

// standing parts the roles that somebody holds into those that nobody revoked, and
// the rest.
func (c *Control) standing(id trust.Identity, record store.SessionRecord, epoch wire.Epoch, held []wire.Role) (roles, removed []wire.Role) {
	facts := c.factsOf(id, record.Groups)
	facts.Roles, facts.Epoch = held, epoch
	return c.o.Registry.Part(facts)
}

// factsOf is what the deny set judges a certificate by.
func (c *Control) factsOf(id trust.Identity, groups []string) revoke.Facts {
	facts := edge.CertificateFacts(id)
	facts.Groups = groups
	return facts
}

// Facts adds to a certificate what control knows of its session: the groups. The
// certificate has proved to be genuine, so it is also noted as shown.
func (c *Control) Facts(id trust.Identity) revoke.Facts {
	groups, serial, ok := c.o.Store.SessionGroups(id.Session)
	if ok && serial == id.Serial && !c.showed(id.Session, serial) {
		c.shown.Store(id.Session, id.Serial)
	}
	return c.factsOf(id, groups)
}

// showed reports whether the laptop has shown the session's latest certificate
// since this process began: then the answer that brought it was not lost.
func (c *Control) showed(id wire.SessionID, latest string) bool {
	serial, _ := c.shown.Load(id)
	return serial == latest
}

// forget keeps what was shown for live sessions only.
func (c *Control) forget(live []store.SessionRecord) {
	ids := make(map[any]bool, len(live))
	for i := range live {
		ids[live[i].ID] = true
	}
	c.shown.Range(func(id, _ any) bool {
		if !ids[id] {
			c.shown.Delete(id)
		}
		return true
	})
}

// Admit decides whether somebody may open a stream to a cluster: he must be
// allowed to know of it, and it must be switched on and within reach. Unknown
// and invisible clusters take the same way to the same answer.
func (c *Control) Admit(id trust.Identity, name wire.ClusterName) *wire.Refusal {
	record, refusal := c.live(id)
	if refusal != nil {
		return refusal
	}
	snapshot := c.o.Store.Snapshot()
	if _, refusal := c.visible(snapshot, c.roles(snapshot, record), name); refusal != nil {
		return refusal
	}
	if !c.o.Reachable(name) {
		return wire.Refuse(wire.ReasonClusterDown, "kubectl zt clusters", "cluster %s cannot be reached by the gateway", name)
	}
	return nil
}

// visible finds a cluster for somebody with these roles. Both look-ups are made
// whatever the first one says.
func (c *Control) visible(snapshot *store.Snapshot, roles []wire.Role, name wire.ClusterName) (*v1alpha1.TargetCluster, *wire.Refusal) {
	cluster, exists := snapshot.Clusters[name]
	sees := snapshot.Policy.Visible(name, roles, c.now())
	if !exists || !sees {
		return nil, edge.UnknownCluster()
	}
	if cluster.Spec.Access == v1alpha1.AccessDisabled {
		return nil, wire.Refuse(wire.ReasonClusterDisabled, "ask your administrator", "cluster %s is switched off", name)
	}
	return cluster, nil
}

// atOnce bounds how many sessions are written at a time. Those that wait for the
// disk together share its flush.
const atOnce = 256

// reevaluate holds every live session against the present state. One whose device
// may not go on, or is somebody else's now, ends with everything that runs in it;
// so does one whose latest certificate was revoked, though it runs on an older.
// What a person has otherwise lost is subtracted from everything that runs and
// from every token out there; what he has gained waits for the next token. One
// session that cannot be written keeps none of the others.
func (c *Control) reevaluate(ctx context.Context) error {
	snapshot, live := c.o.Store.Snapshot(), c.o.Store.Sessions()
	c.forget(live)
	var settling sync.WaitGroup
	var mu sync.Mutex
	var first error
	failed, places := 0, make(chan struct{}, atOnce)
	for _, record := range live {
		unfit, roles := c.unfit(snapshot, record), c.roles(snapshot, record)
		if unfit == nil && slices.Equal(record.Roles, roles) {
			continue
		}
		places <- struct{}{}
		settling.Go(func() {
			defer func() { <-places }()
			var err error
			if unfit != nil {
				err = c.expel(ctx, record, unfit)
			} else {
				err = c.settle(ctx, record.ID, roles)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed++
				first = cmp.Or(first, err)
			}
		})
	}
	settling.Wait()
	if failed > 0 {
		return fmt.Errorf("%d sessions, the first: %v", failed, first)
	}
	return nil
}

// unfit is why the session may not go on with this device and certificate, nil
// when it may.
func (c *Control) unfit(snapshot *store.Snapshot, record store.SessionRecord) *wire.Refusal {
	if err := c.deviceMay(snapshot, record.Device, record.Thumbprint, wire.PurposeRenew); err != nil {
		return explainDevice(err)
	}
	// The device may have been given to somebody else since the login.
	if d, known := snapshot.Device(record.Device); known {
		if has, is := owner(d, record.User); has && !is {
			return refuseForeignDevice()
		}
	}
	return c.o.Registry.Check(revoke.Facts{Serial: record.Serial})
}

// expel ends a session that is unfit for good, and everything that runs in it.
func (c *Control) expel(ctx context.Context, record store.SessionRecord, why *wire.Refusal) error {
	spec := v1alpha1.RevocationSpec{Session: string(record.ID), Reason: why.Message}
	if _, err := c.o.Store.Revoke(ctx, spec, revoke.ByControl); err != nil {
		return fmt.Errorf("end session %s: %v", record.ID, err)
	}
	_ = c.o.Audit.Event(audit.Record{
		Event: audit.EventRevoked, User: &record.User, Device: record.Device, Session: record.ID,
		Decision: audit.Refused, Reason: why.Reason, Message: why.Message,
	})
	return c.markEnded(ctx, record.ID)
}

// markEnded writes that a session is over.
func (c *Control) markEnded(ctx context.Context, id wire.SessionID) error {
	defer c.records.lock(string(id))()
	record, ok := c.o.Store.Session(id)
	if !ok || !record.Ended.IsZero() {
		return nil
	}
	record.Ended = c.now().UTC()
	if err := c.o.Store.PutSession(ctx, record); err != nil {
		return fmt.Errorf("write session %s: %v", id, err)
	}
	return nil
}

// settle writes what a session's tokens may hold from now on. What they may not
// hold any more is subtracted first: were the record written alone, nobody would
// know later that something is still to be taken.
func (c *Control) settle(ctx context.Context, id wire.SessionID, now []wire.Role) error {
	defer c.records.lock(string(id))()
	record, ok := c.o.Store.Session(id)
	if !ok || slices.Equal(record.Roles, now) {
		return nil
	}
	if err := c.subtract(ctx, id, record.Roles, now); err != nil {
		return err
	}
	record.Roles = now
	if err := c.o.Store.PutSession(ctx, record); err != nil {
		return fmt.Errorf("write session %s: %v", id, err)
	}
	return nil
}

// subtract makes the difference a revocation.
func (c *Control) subtract(ctx context.Context, id wire.SessionID, before, now []wire.Role) error {
	var lost []string
	for _, role := range before {
		if !slices.Contains(now, role) {
			lost = append(lost, string(role))
		}
	}
	if len(lost) == 0 {
		return nil
	}
	spec := v1alpha1.RevocationSpec{Session: string(id), Roles: lost, Reason: "the conditions of the role no longer hold"}
	if _, err := c.o.Store.Revoke(ctx, spec, revoke.ByControl); err != nil {
		return fmt.Errorf("subtract roles of session %s: %v", id, err)
	}
	return nil
}
