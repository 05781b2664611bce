package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/wire"
)

// token mints an access token for one cluster. What keeps a person out
// altogether is said here, where the credential plugin prints it; kubectl never
// shows the text of a 401.
func (c *Control) token(ctx context.Context, p *peer, in *wire.TokenRequest) (*wire.Token, *wire.Refusal) {
	r := p.record(audit.EventToken)
	r.Cluster = in.Cluster
	token, refusal, err := c.mint(ctx, p, in.Cluster, r)
	if refusal != nil {
		return nil, c.refused("token", r, refusal, err)
	}
	c.o.Metrics.Issued("token")
	return token, nil
}

func (c *Control) mint(ctx context.Context, p *peer, name wire.ClusterName, r audit.Record) (*wire.Token, *wire.Refusal, error) {
	record, refusal := c.live(p.identity)
	if refusal != nil {
		return nil, refusal, nil
	}
	return c.mintOn(ctx, p, record, c.o.Store.Snapshot(), name, r)
}

// mintOn says everything that a token says from one snapshot.
func (c *Control) mintOn(ctx context.Context, p *peer, record store.SessionRecord, snapshot *store.Snapshot, name wire.ClusterName, r audit.Record) (*wire.Token, *wire.Refusal, error) {
	held := c.roles(snapshot, record)
	facts := c.factsOf(p.identity, record.Groups)
	roles, removed := c.standing(p.identity, record, snapshot.Epoch, held)

	if _, refusal := c.visible(snapshot, roles, name); refusal != nil {
		if len(removed) > 0 {
			// What a role showed before it was revoked is in the catalogue: no secret.
			if _, refusal = c.visible(snapshot, held, name); refusal == nil {
				facts.Roles, facts.Epoch = held, snapshot.Epoch
				refusal = c.o.Registry.Check(facts)
			}
			if refusal == nil {
				refusal = wire.Refuse(wire.ReasonRoleRevoked, "ask the administrators of zt", "role %s was revoked", removed[0])
			}
		}
		return nil, refusal, nil
	}
	facts.Roles, facts.Epoch, facts.Cluster = roles, snapshot.Epoch, name
	if refusal := c.o.Registry.Check(facts); refusal != nil {
		return nil, refusal, nil
	}
	cluster, err := c.o.Authorities.Cluster(name)
	if err != nil {
		return nil, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"), err
	}
	// The record must know every role that is in a token, or taking it away
	// later would find nothing to take.
	if err := c.settle(ctx, record.ID, held); err != nil {
		return nil, refuseStore(), err
	}
	// The state, or the person's groups, may have changed since, and been held
	// against a record that did not show these roles yet. What they take is then
	// subtracted from this token, too: its epoch is the older one.
	if latest, ok := c.o.Store.Session(record.ID); ok {
		if err := c.settle(ctx, record.ID, c.roles(c.o.Store.Snapshot(), latest)); err != nil {
			return nil, refuseStore(), err
		}
	}

	now := c.now().UTC()
	expires := earlier(now.Add(c.config().Session.TokenLifetime.Duration), record.End)
	claims := wire.TokenClaims{
		Issuer:   Issuer(c.config().Domain),
		Subject:  record.User.Subject,
		Audience: cluster.UID,
		IssuedAt: now.Unix(),
		Expiry:   expires.Unix(),
		ID:       strings.ToLower(rand.Text()),
		Session:  record.ID,
		Epoch:    snapshot.Epoch,
		User:     record.User,
		Roles:    roles,
		Revoked:  removed,
		Device:   deviceOf(snapshot, record),
		AMR:      record.AMR,
	}
	claims.Confirm.JKT = p.identity.Key
	if !record.AuthTime.IsZero() {
		claims.AuthTime = record.AuthTime.Unix()
	}
	text, err := c.sign(claims)
	if err != nil {
		return nil, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"), err
	}
	r.Roles, r.Tier, r.Version = roles, record.Tier, snapshot.Version
	r.Detail = map[string]string{"jti": claims.ID, "epoch": claims.Epoch.String()}
	if refusal := c.allowed("token", r); refusal != nil {
		return nil, refusal, nil
	}
	return &wire.Token{Token: text, Expires: expires, Time: now}, nil, nil
}

func (c *Control) sign(claims wire.TokenClaims) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := c.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
