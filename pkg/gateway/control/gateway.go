package control

import (
	"net/http"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// gatewayHandler is what gw.DOMAIN answers.
func (c *Control) gatewayHandler() http.Handler {
	return c.guard(routes{
		wire.PathDiscovery:    {http.MethodGet: c.discovery},
		wire.PathJWKS:         {http.MethodGet: c.jwks},
		wire.PathDeviceNonce:  {http.MethodPost: c.nonce},
		wire.PathDeviceCheck:  {http.MethodPost: answer(c, door{"check", audit.EventDeviceCheck, c.checks, maxStatement}, c.deviceCheck)},
		wire.PathDeviceEnroll: {http.MethodPost: answer(c, door{"enroll", audit.EventAuthn, c.logins, maxLogin}, c.enroll)},
		wire.PathSession:      {http.MethodPost: answer(c, door{"session", audit.EventAuthn, c.logins, maxLogin}, c.session)},
		wire.PathSessionRenew: {http.MethodPost: answer(c, door{"renew", audit.EventRenewed, c.logins, maxLogin}, c.renewExpired)},
	})
}

// discovery is what an agent fixes in its profile at first contact.
func (c *Control) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, wire.Discovery{
		TrustDomain: c.config().TrustDomain,
		Domain:      c.config().Domain,
		GatewayCA:   string(c.o.Authorities.CertificatePEM(trust.Gateway)),
		OIDC: wire.OIDC{
			Issuer:     wire.Issuer(c.config().OIDC.Issuer),
			ClientID:   c.config().OIDC.ClientID,
			Scopes:     c.config().OIDC.Scopes,
			CA:         string(c.o.IssuerCA),
			DeviceCode: c.config().Login.DeviceCode,
		},
		Enrolment: string(c.config().Login.Enrolment),
		Time:      c.now().UTC().Truncate(time.Millisecond),
	})
}

// jwks are the public keys of access tokens.
func (c *Control) jwks(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, c.o.Authorities.TokenKeys())
}

// nonce hands out a nonce. It costs an HMAC and remembers nothing, so there is
// nothing to use up.
func (c *Control) nonce(w http.ResponseWriter, _ *http.Request) {
	nonce, err := c.verifier.Nonce()
	if err != nil {
		c.log.Error("no nonce", "error", err)
		edge.WriteRefusal(w, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"))
		return
	}
	writeJSON(w, http.StatusOK, nonce)
}
