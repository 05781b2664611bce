package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// authenticate is the person's part of a transaction: an ID token that was made
// for it, by its nonce, or, from the device grant, which can carry none, one
// that is younger than the transaction.
func (c *Control) authenticate(ctx context.Context, txn string, t transaction, idToken string, deviceCode bool) (assertion, *wire.Refusal, error) {
	if deviceCode && !c.config().Login.DeviceCode {
		return assertion{}, wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "this gateway does not allow the device code login"), nil
	}
	who, refusal, err := c.idToken(ctx, idToken)
	if refusal != nil {
		return who, refusal, err
	}
	if !deviceCode {
		want := evidence.OIDCNonce(txn, t.Thumbprint)
		if subtle.ConstantTimeCompare([]byte(want), []byte(who.nonce)) != 1 {
			return who, refuseOtherLogin(), errors.New("the nonce is another")
		}
		return who, nil, nil
	}
	// iat has whole seconds, so the second of the transaction itself counts.
	since := who.issued.Sub(t.Issued.Truncate(time.Second))
	if who.nonce != "" || since < 0 || since > transactionLife {
		return who, refuseOtherLogin(), errors.New("the device code's token has a nonce or is not of this transaction's time")
	}
	return who, nil, nil
}

func refuseOtherLogin() *wire.Refusal {
	return wire.Refuse(wire.ReasonTokenInvalid, "kubectl zt login", "the identity provider's token is of another login")
}

// useOnce marks something as used, for longer than it could be used again.
func (c *Control) useOnce(ctx context.Context, kind string, what []byte) (*wire.Refusal, error) {
	err := c.o.Store.UseOnce(ctx, onceHash(kind, what), c.now().Add(2*transactionLife))
	switch {
	case errors.Is(err, store.ErrUsed):
		return wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "this login was completed before"), err
	case err != nil:
		return refuseStore(), err
	}
	return nil, nil
}

// session issues the first certificate of a session.
func (c *Control) session(ctx context.Context, from source, in *wire.SessionRequest) (*wire.Certificate, *wire.Refusal) {
	r := audit.Record{Event: audit.EventAuthn, Source: from.String(), UserAgent: from.userAgent}
	refused := func(refusal *wire.Refusal, cause error) (*wire.Certificate, *wire.Refusal) {
		return nil, c.refused("session", r, refusal, cause)
	}
	t, err := c.openTransaction(in.TXN, wire.PurposeLogin)
	if err != nil {
		return refused(refuseTransaction(), nil)
	}
	r.Device, r.Tier = t.Device, t.Tier
	key, refusal := requestKey(in.CSR, t.Thumbprint)
	if refusal != nil {
		return refused(refusal, nil)
	}
	who, refusal, err := c.authenticate(ctx, in.TXN, t, in.IDToken, in.DeviceCode)
	if who.user.Subject != "" {
		r.User = &who.user
	}
	if refusal != nil {
		return refused(refusal, err)
	}
	if refusal := c.allowed("session", r); refusal != nil {
		return nil, refusal
	}

	r.Event = audit.EventSession
	defer c.shares.lock(share(who.user))()
	if refusal := c.mayLogIn(who.user); refusal != nil {
		return refused(refusal, nil)
	}
	tier, refusal, err := c.admitDevice(ctx, in, t, who)
	if refusal != nil {
		return refused(refusal, err)
	}
	if err := c.makeRoom(ctx, who.user); err != nil {
		return refused(refuseStore(), err)
	}
	now := c.now().UTC()
	record := store.SessionRecord{
		ID:   wire.SessionID(strings.ToLower(rand.Text())),
		User: who.user, Device: t.Device, Thumbprint: t.Thumbprint, Proof: t.Proof,
		Tier: tier, DeviceCode: in.DeviceCode, Nonce: who.nonce,
		Issued: now, End: now.Add(c.config().Session.MaxLength.Duration),
	}
	r.Tier = tier
	certificate, refusal, err := c.issue(ctx, record, key, who, r)
	if refusal != nil {
		return refused(refusal, err)
	}
	c.o.Metrics.Login("session", "")
	c.o.Metrics.Issued("certificate")
	return certificate, nil
}

// requestKey is the key of a certificate request, which must be the device key
// of the given thumbprint.
func requestKey(csr string, want wire.Thumbprint) (*ecdsa.PublicKey, *wire.Refusal) {
	key, err := ca.ParseRequest(csr)
	if err != nil {
		return nil, wire.Refuse(wire.ReasonMalformed, "", "%v", err)
	}
	if got, err := trust.Thumbprint(key); err != nil || got != want {
		return nil, wire.Refuse(wire.ReasonBindingMismatch, "kubectl zt login", "the certificate request is for another key than this device's")
	}
	return key, nil
}

// admitDevice judges the device again, now that its user is known, spends the
// transaction, and makes the first user the owner. It returns the tier that
// this session has.
func (c *Control) admitDevice(ctx context.Context, in *wire.SessionRequest, t transaction, who assertion) (string, *wire.Refusal, error) {
	facts := revoke.Facts{User: who.user, Groups: who.groups, Device: t.Device, Key: t.Thumbprint}
	if refusal := c.o.Registry.Check(facts); refusal != nil {
		return "", refusal, nil
	}
	snapshot := c.o.Store.Snapshot()
	if err := c.deviceMay(snapshot, t.Device, t.Thumbprint, wire.PurposeLogin); err != nil {
		return "", explainDevice(err), nil
	}
	d, known := snapshot.Device(t.Device)
	has, is := owner(d, who.user)
	if has && !is {
		return "", refuseForeignDevice(), nil
	}
	if refusal, err := c.useOnce(ctx, "txn", []byte(in.TXN)); refusal != nil {
		return "", refusal, err
	}
	if in.DeviceCode {
		// Such a token says nothing about this device: whoever sits elsewhere
		// may have been talked into approving the code.
		payload, err := tokenPayload(in.IDToken)
		if err != nil {
			return "", refuseOtherLogin(), err
		}
		if refusal, err := c.useOnce(ctx, "id-token", payload); refusal != nil {
			return "", refusal, err
		}
		if known && is && approved(d) {
			return t.Tier, nil, nil
		}
		return string(v1alpha1.TierNone), nil, nil
	}
	if d.Status.OwnerSubject == "" || d.Status.Thumbprint == "" {
		if _, refusal, err := c.observe(ctx, t, who.user); refusal != nil {
			return "", refusal, err
		}
	}
	return t.Tier, nil, nil
}

// tokenPayload is what a verified token says, in the one form in which it was
// signed: its text has more than one spelling that verifies.
func tokenPayload(raw string) ([]byte, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("not three parts")
	}
	return base64.RawURLEncoding.DecodeString(parts[1])
}

// issue signs a certificate for a session, writes the session's record and the
// audit log, and only then gives it out. record holds what does not change in a
// session; the rest comes from what the issuer says now.
func (c *Control) issue(ctx context.Context, record store.SessionRecord, key *ecdsa.PublicKey, who assertion, r audit.Record) (*wire.Certificate, *wire.Refusal, error) {
	now, terms := c.now().UTC(), c.config().Session
	end := now.Add(terms.CertificateLifetime.Duration)
	if !who.expires.IsZero() {
		// Should the issuer never vouch for the person again, the session ends
		// with its last word and the grace.
		end = earlier(end, who.expires.Add(terms.Grace.Duration))
		record.IDTokenIssuedAt, record.IDTokenExpires = who.issued, who.expires
	}
	end = earlier(end, record.End)
	if !end.After(now) {
		return nil, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the session has reached its end"), nil
	}
	chain, err := c.o.Authorities.IssueTrust(trust.Identity{Session: record.ID, Proof: record.Proof, User: record.User}, key, end.Sub(now))
	if errors.Is(err, ca.ErrOurKey) {
		return nil, wire.Refuse(wire.ReasonDeviceRefused, "", "this key cannot be a device's"), err
	}
	if err != nil {
		return nil, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"), err
	}
	record.User.Name = who.user.Name
	record.Groups, record.GroupsUnknown = who.groups, who.groupsUnknown
	if !who.issued.IsZero() { // userinfo says nothing about these
		record.AMR, record.AuthTime = who.amr, who.authTime
	}
	record.LastRenewed, record.Serial, record.NotAfter = now, chain[0].SerialNumber.Text(16), chain[0].NotAfter.UTC()
	r.Session, r.Roles = record.ID, c.roles(c.o.Store.Snapshot(), record)
	r.Detail = map[string]string{"serial": record.Serial, "notAfter": chain[0].NotAfter.UTC().Format(time.RFC3339)}
	if refusal := c.allowed("session", r); refusal != nil {
		return nil, refusal, nil
	}
	switch err := c.putIssued(ctx, record); {
	case errors.Is(err, errEnded):
		return nil, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the session was ended"), nil
	case err != nil:
		return nil, refuseStore(), err
	}
	var text strings.Builder
	for _, cert := range chain {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			return nil, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"), err
		}
	}
	return &wire.Certificate{
		Chain: text.String(), Session: record.ID, User: record.User.Name, Device: record.Device, Tier: record.Tier,
		NotAfter: chain[0].NotAfter.UTC(), SessionEnd: record.End.UTC(), Time: now,
	}, nil, nil
}

// errEnded says that a session was ended while it was being renewed.
var errEnded = errors.New("the session has ended meanwhile")

// putIssued subtracts the roles that the person has lost since the last issue,
// for less must hold before more is given, and writes the record of this one. A
// session that was ended since it was looked at stays so.
func (c *Control) putIssued(ctx context.Context, record store.SessionRecord) error {
	defer c.records.lock(string(record.ID))()
	last, _ := c.o.Store.Session(record.ID)
	if !last.Ended.IsZero() {
		return errEnded
	}
	record.Roles = c.roles(c.o.Store.Snapshot(), record)
	if err := c.subtract(ctx, record.ID, last.Roles, record.Roles); err != nil {
		return err
	}
	if err := c.o.Store.PutSession(ctx, record); err != nil {
		return fmt.Errorf("write session %s: %v", record.ID, err)
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
