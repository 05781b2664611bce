package control

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/gateway/verify"
	"github.com/kube-zt/zt/pkg/wire"
)

// deviceCheck is the first step, of anybody. It says yes or one and the same no.
func (c *Control) deviceCheck(_ context.Context, from source, in *wire.DeviceCheckRequest) (*wire.DeviceCheck, *wire.Refusal) {
	r := audit.Record{Event: audit.EventDeviceCheck, Source: from.String(), UserAgent: from.userAgent}
	device, err := c.verifier.Statement(in.Statement)
	switch {
	case errors.Is(err, verify.ErrPurpose):
		return nil, c.refused("check", r, wire.Refuse(wire.ReasonMalformed, "", "unknown kind of device statement"), nil)
	case errors.Is(err, verify.ErrClockSkew):
		refusal := wire.Refuse(wire.ReasonClockSkew, "set this machine's clock",
			"clock skew: this machine's clock is more than %v from the gateway's, where it is %s", verify.MaxClockSkew, c.now().UTC().Format("2006-01-02 15:04:05 MST"))
		return nil, c.refused("check", r, refusal, nil)
	case err != nil:
		return nil, c.refused("check", r, refuseDevice(), err)
	}
	r.Device, r.Tier = device.ID, string(device.Tier)
	r.Detail = map[string]string{"purpose": device.Purpose}
	if err := c.deviceMay(c.o.Store.Snapshot(), device.ID, device.Thumbprint, device.Purpose); err != nil {
		return nil, c.refused("check", r, refuseDevice(), err)
	}
	txn, err := c.sealTransaction(device)
	if err != nil {
		return nil, c.refused("check", r, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"), err)
	}
	// Anybody makes a key, and nothing is given for it yet: only of a device that is
	// known each check is recorded. Who logs in with it is, in any case.
	if _, known := c.o.Store.Snapshot().Device(device.ID); known || c.floods.AllowN(c.now(), 1) {
		if refusal := c.allowed("check", r); refusal != nil {
			return nil, refusal
		}
	}
	c.o.Metrics.Login("check", "")
	return &wire.DeviceCheck{TXN: txn, Nonce: evidence.OIDCNonce(txn, device.Thumbprint), Time: c.now().UTC()}, nil
}

// refuseDevice is all that a stranger is told.
func refuseDevice() *wire.Refusal {
	return &wire.Refusal{Reason: wire.ReasonDeviceRefused, Message: "this device is not accepted"}
}

// Why a device may not go on. Only the audit log, and people who have proved
// who they are, hear the difference.
var (
	errDeviceRevoked = errors.New("the device is revoked")
	errDeviceUnknown = errors.New("the device is unknown")
	errDevicePending = errors.New("the device is not approved yet")
)

// deviceMay judges a device by what is in memory.
func (c *Control) deviceMay(snapshot *store.Snapshot, id wire.DeviceID, key wire.Thumbprint, purpose string) error {
	if c.o.Registry.Check(revoke.Facts{Device: id, Key: key}) != nil {
		return errDeviceRevoked
	}
	d, known := snapshot.Device(id)
	switch {
	case known && (d.Spec.Revoked || d.Status.Phase == v1alpha1.DeviceRevoked):
		return errDeviceRevoked
	case purpose == wire.PurposeEnroll || c.config().Login.Enrolment == v1alpha1.EnrolmentOpen:
		return nil
	case !known:
		return errDeviceUnknown
	case !approved(d):
		return errDevicePending
	}
	return nil
}

// approved of a merged device: its phase says what the stricter half wishes.
func approved(d v1alpha1.Device) bool { return d.Status.Phase == v1alpha1.DeviceApproved }

// explainDevice is what somebody who has logged in may know.
func explainDevice(err error) *wire.Refusal {
	switch {
	case errors.Is(err, errDevicePending):
		return wire.Refuse(wire.ReasonDevicePending, "kubectl zt device status", "this device waits for an administrator's approval")
	case errors.Is(err, errDeviceUnknown):
		return wire.Refuse(wire.ReasonDeviceUnknown, "kubectl zt device enroll", "this device is not enrolled")
	default:
		return wire.Refuse(wire.ReasonRevoked, "ask the administrators of zt", "this device was revoked")
	}
}

func refuseForeignDevice() *wire.Refusal {
	return wire.Refuse(wire.ReasonDeviceRefused, "use a device of your own, or ask your administrator to change its owner", "this device belongs to somebody else")
}

// owner says whether a device has an owner, and whether it is this person. Who
// was seen is known by issuer and subject; whom an administrator has named but
// nobody has seen yet, by name alone.
func owner(d v1alpha1.Device, user wire.User) (has, is bool) {
	switch {
	case d.Status.OwnerSubject != "":
		return true, user.Same(wire.User{Issuer: wire.Issuer(d.Status.OwnerIssuer), Subject: wire.Subject(d.Status.OwnerSubject)})
	case d.Spec.Owner != "":
		return true, d.Spec.Owner == string(user.Name)
	}
	return false, false
}

// observe makes somebody the owner of a device that he used, if it has none. The
// caller holds the lock of his share.
func (c *Control) observe(ctx context.Context, t transaction, user wire.User) (v1alpha1.Device, *wire.Refusal, error) {
	if refusal := c.mayOwn(user, t.Device); refusal != nil {
		return v1alpha1.Device{}, refusal, nil
	}
	d, err := c.o.Store.ObserveDevice(ctx, t.Device, v1alpha1.DeviceStatus{
		Thumbprint:   string(t.Thumbprint),
		Owner:        string(user.Name),
		OwnerIssuer:  string(user.Issuer),
		OwnerSubject: string(user.Subject),
		Tier:         v1alpha1.DeviceTier(t.Tier),
		Platform:     t.Platform,
		Hostname:     t.Hostname,
		Phase:        v1alpha1.DevicePending,
		FirstSeen:    metav1.NewTime(c.now().UTC()),
	})
	switch {
	case errors.Is(err, store.ErrOwned):
		return d, refuseForeignDevice(), nil
	case err != nil:
		return d, refuseStore(), err
	}
	return d, nil, nil
}

func refuseStore() *wire.Refusal {
	return wire.Refuse(wire.ReasonStoreFailed, "try again", "the gateway cannot write its state")
}

// enroll makes a Device object for the key of a transaction. The ID token has
// the transaction's nonce, so a person stands behind it; an administrator
// approves it elsewhere.
func (c *Control) enroll(ctx context.Context, from source, in *wire.EnrollRequest) (*wire.DeviceState, *wire.Refusal) {
	r := audit.Record{Event: audit.EventAuthn, Source: from.String(), UserAgent: from.userAgent, Detail: map[string]string{"purpose": wire.PurposeEnroll}}
	t, err := c.openTransaction(in.TXN, wire.PurposeEnroll)
	if err != nil {
		return nil, c.refused("enroll", r, refuseTransaction(), nil)
	}
	r.Device, r.Tier = t.Device, t.Tier
	who, refusal, err := c.authenticate(ctx, in.TXN, t, in.IDToken, false)
	if who.user.Subject != "" {
		r.User = &who.user
	}
	if refusal != nil {
		return nil, c.refused("enroll", r, refusal, err)
	}
	if refusal := c.allowed("enroll", r); refusal != nil {
		return nil, refusal
	}
	defer c.shares.lock(share(who.user))()
	r.Event = audit.EventDeviceEnrolled
	if err := c.deviceMay(c.o.Store.Snapshot(), t.Device, t.Thumbprint, wire.PurposeEnroll); err != nil {
		return nil, c.refused("enroll", r, explainDevice(err), nil)
	}
	if refusal, err := c.useOnce(ctx, "txn", []byte(in.TXN)); refusal != nil {
		return nil, c.refused("enroll", r, refusal, err)
	}
	d, refusal, err := c.observe(ctx, t, who.user)
	if refusal != nil {
		return nil, c.refused("enroll", r, refusal, err)
	}
	if refusal := c.allowed("enroll", r); refusal != nil {
		return nil, refusal
	}
	c.o.Metrics.Login("enroll", "")
	return deviceState(t.Device, d), nil
}

// deviceState is what a person may know of his own device.
func deviceState(id wire.DeviceID, d v1alpha1.Device) *wire.DeviceState {
	s := &wire.DeviceState{
		ID: id, Phase: string(d.Status.Phase), Tier: string(d.Status.Tier),
		Ownership: string(d.Spec.Ownership), Owner: wire.Username(d.Spec.Owner),
	}
	if s.Phase == "" {
		s.Phase = string(v1alpha1.DevicePending)
	}
	if s.Tier == "" {
		s.Tier = string(v1alpha1.TierSoftware)
	}
	if s.Ownership == "" {
		s.Ownership = string(v1alpha1.OwnershipPersonal)
	}
	if s.Owner == "" {
		s.Owner = wire.Username(d.Status.Owner)
	}
	return s
}
