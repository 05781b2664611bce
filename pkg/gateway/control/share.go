package control

import (
	"context"
	"fmt"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/wire"
)

// One person's share of the state. Budgets bound what a source costs in a minute;
// these bound what somebody with an account leaves behind, for all others' sake.
const (
	// liveSessions of one person; a further one ends the oldest.
	liveSessions = 64
	// allSessions of one person that the state still holds, ended ones too: until
	// a day after each would have ended.
	allSessions = 512
	// pendingDevices of one person that wait for an approval. Where none is
	// needed, and so none is given, there may be openDevices.
	pendingDevices, openDevices = 16, 256
)

// share is under which name a person's share is looked at and taken.
func share(user wire.User) string { return fmt.Sprintf("%q %q", user.Issuer, user.Subject) }

// mayLogIn refuses whoever has filled his share of sessions.
func (c *Control) mayLogIn(user wire.User) *wire.Refusal {
	if len(c.o.Store.SessionsOf(user)) < allSessions {
		return nil
	}
	return wire.Refuse(wire.ReasonLimit, "stay logged in, and try again tomorrow",
		"you have logged in %d times lately, which is as often as this gateway remembers of one person", allSessions)
}

// makeRoom ends the oldest sessions of a person, until one more is not too many.
// The caller holds the lock of his share.
func (c *Control) makeRoom(ctx context.Context, user wire.User) error {
	var live []store.SessionRecord
	now := c.now()
	for _, record := range c.o.Store.SessionsOf(user) {
		if record.Ended.IsZero() && now.Before(record.End) {
			live = append(live, record)
		}
	}
	for ; len(live) >= liveSessions; live = live[1:] {
		spec := v1alpha1.RevocationSpec{
			Session: string(live[0].ID),
			Reason:  fmt.Sprintf("you have logged in elsewhere, and more than %d sessions at a time are not kept", liveSessions),
		}
		if _, err := c.o.Store.Revoke(ctx, spec, string(user.Name)); err != nil {
			return fmt.Errorf("end session %s: %v", live[0].ID, err)
		}
		if err := c.markEnded(ctx, live[0].ID); err != nil {
			return err
		}
	}
	return nil
}

// mayOwn refuses one more device to whoever has too many that nobody approved.
// The caller holds the lock of his share.
func (c *Control) mayOwn(user wire.User, id wire.DeviceID) *wire.Refusal {
	snapshot := c.o.Store.Snapshot()
	if d, _ := snapshot.Device(id); approved(d) || d.Status.OwnerSubject != "" {
		return nil // there is no new device
	}
	most := pendingDevices
	if c.config().Login.Enrolment == v1alpha1.EnrolmentOpen {
		most = openDevices
	}
	n := 0
	for _, d := range snapshot.Devices {
		if _, is := owner(d, user); is && d.Status.Phase == v1alpha1.DevicePending {
			n++
		}
	}
	if n < most {
		return nil
	}
	return wire.Refuse(wire.ReasonLimit, "ask the administrators of zt to approve or revoke some of them",
		"you have %d devices that nobody has approved, and one person may have no more", n)
}
