package control

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// issueSkew is how far the issuer's clock may be behind ours where an ID token
// must not be older than our last issue.
const issueSkew = time.Minute

// renewExpired renews a certificate that has expired, on gw.DOMAIN, after a new
// device check. What is alive is renewed through the tunnel and nowhere else.
func (c *Control) renewExpired(ctx context.Context, from source, in *wire.RenewRequest) (*wire.Certificate, *wire.Refusal) {
	r := audit.Record{Event: audit.EventRenewed, Source: from.String(), UserAgent: from.userAgent}
	refused := func(refusal *wire.Refusal, cause error) (*wire.Certificate, *wire.Refusal) {
		return nil, c.refused("renew", r, refusal, cause)
	}
	t, err := c.openTransaction(in.TXN, wire.PurposeRenew)
	if err != nil {
		return refused(refuseTransaction(), nil)
	}
	r.Device, r.Tier = t.Device, t.Tier
	id, refusal, err := c.expiredIdentity(in.Certificate)
	if refusal != nil {
		return refused(refusal, err)
	}
	r.User, r.Session = &id.User, id.Session
	if id.Key != t.Thumbprint || id.Proof != t.Proof {
		return refused(wire.Refuse(wire.ReasonBindingMismatch, "kubectl zt login", "the certificate is of another device or proof key"), nil)
	}
	if refusal, err := c.useOnce(ctx, "txn", []byte(in.TXN)); refusal != nil {
		return refused(refusal, err)
	}
	certificate, refusal, err := c.renew(ctx, id, in, r)
	if refusal != nil {
		return refused(refusal, err)
	}
	return certificate, nil
}

// expiredIdentity verifies a certificate as of its own end, which must be over.
func (c *Control) expiredIdentity(text string) (trust.Identity, *wire.Refusal, error) {
	block, _ := pem.Decode([]byte(text)) // the leaf; the authority is known
	if block == nil || block.Type != "CERTIFICATE" {
		return trust.Identity{}, wire.Refuse(wire.ReasonMalformed, "", "no certificate to renew"), nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return trust.Identity{}, wire.Refuse(wire.ReasonMalformed, "", "no certificate to renew"), nil
	}
	roots, domain := c.o.Authorities.Roots(trust.Trust), c.config().TrustDomain
	id, err := trust.VerifyTrustChain([]*x509.Certificate{cert}, roots, domain, cert.NotAfter)
	switch {
	case err != nil:
		return trust.Identity{}, wire.Refuse(wire.ReasonUnauthenticated, "kubectl zt login", "the certificate to renew is not this gateway's"), err
	case !c.now().After(id.NotAfter):
		return id, refuseLive(), nil
	}
	// An older certificate of a session that lives by a newer one. Should the
	// answer that brought the newer have been lost, only this one is left.
	if record, ok := c.o.Store.Session(id.Session); ok && !c.now().After(record.NotAfter) && c.showed(record.ID, record.Serial) {
		return id, refuseLive(), nil
	}
	return id, nil, nil
}

func refuseLive() *wire.Refusal {
	return &wire.Refusal{Reason: wire.ReasonMethod, Code: http.StatusConflict, Message: "the certificate is still good; it is renewed through the tunnel"}
}

// renew issues the next certificate of a session: same device key, same
// session, not revoked, and the issuer vouches for the person again. It never
// goes past the session's end.
func (c *Control) renew(ctx context.Context, id trust.Identity, in *wire.RenewRequest, r audit.Record) (*wire.Certificate, *wire.Refusal, error) {
	key, refusal := requestKey(in.CSR, id.Key)
	if refusal != nil {
		return nil, refusal, nil
	}
	record, refusal := c.live(id)
	if refusal != nil {
		return nil, refusal, nil
	}
	who, refusal, err := c.vouched(ctx, record, in)
	if refusal != nil {
		return nil, refusal, err
	}
	if refusal := c.o.Registry.Check(c.factsOf(id, who.groups)); refusal != nil {
		return nil, refusal, nil
	}
	r.Event, r.Tier = audit.EventRenewed, record.Tier
	certificate, refusal, err := c.issue(ctx, record, key, who, r)
	if refusal != nil {
		return nil, refusal, err
	}
	c.o.Metrics.Login("renew", "")
	c.o.Metrics.Issued("renewal")
	return certificate, nil, nil
}

// live is the record of a session that may go on.
func (c *Control) live(id trust.Identity) (store.SessionRecord, *wire.Refusal) {
	record, ok := c.o.Store.Session(id.Session)
	if !ok || record.Thumbprint != id.Key || !record.User.Same(id.User) {
		return record, wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "the gateway does not know this session")
	}
	refusal := c.o.Registry.Check(c.factsOf(id, record.Groups))
	if refusal == nil || refusal.Reason == wire.ReasonSessionEnded {
		// What would keep out a new login, too, is said before the end of this one.
		if unfit := c.unfit(c.o.Store.Snapshot(), record); unfit != nil {
			return record, unfit
		}
	}
	if refusal != nil {
		return record, refusal
	}
	switch {
	case !record.Ended.IsZero():
		return record, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the session was ended")
	case !c.now().Before(record.End):
		return record, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the session has reached its longest length")
	}
	return record, nil
}

// vouched asks what the issuer says of the person now.
func (c *Control) vouched(ctx context.Context, record store.SessionRecord, in *wire.RenewRequest) (assertion, *wire.Refusal, error) {
	var who assertion
	var refusal *wire.Refusal
	var err error
	switch {
	case in.IDToken != "" && in.AccessToken != "":
		return who, wire.Refuse(wire.ReasonMalformed, "", "either an ID token or an access token, not both"), nil
	case in.IDToken != "":
		if who, refusal, err = c.idToken(ctx, in.IDToken); refusal != nil {
			return who, refusal, err
		}
		if err := continues(record, who); err != nil {
			return who, refuseOtherLogin(), err
		}
	case in.AccessToken != "":
		if who, refusal, err = c.userinfo(ctx, in.AccessToken); refusal != nil {
			return who, refusal, err
		}
	default:
		return who, wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "the identity provider vouches for nobody without a new login"), nil
	}
	if !who.user.Same(record.User) {
		return who, wire.Refuse(wire.ReasonIdentityMismatch, "kubectl zt login", "the identity provider's answer is about another person"), nil
	}
	if who.user.Name != record.User.Name {
		return who, wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "the identity provider gives this person another name now"), nil
	}
	return who, nil, nil
}

// continues checks what a refreshed ID token must have (OpenID Connect Core
// 12.2): no nonce or the login's, and no older than what we issued last.
func continues(record store.SessionRecord, who assertion) error {
	switch {
	case who.nonce != "" && who.nonce != record.Nonce:
		return errors.New("the nonce is of another login")
	case who.issued.Before(record.IDTokenIssuedAt) || who.issued.Before(record.LastRenewed.Add(-issueSkew)):
		return errors.New("the token is older than the last issue")
	}
	return nil
}
