package control

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// maxIssuerAnswer bounds what is read of the issuer, in bytes.
const maxIssuerAnswer = 1 << 20

// issuerTimeout bounds one call of the issuer.
const issuerTimeout = 10 * time.Second

// openIssuer prepares to talk to the issuer; it does not do so yet.
func (c *Control) openIssuer() error {
	var roots *x509.CertPool
	if len(c.o.IssuerCA) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(c.o.IssuerCA) {
			return errors.New("oidc.certificateAuthorityFile: no certificate in it")
		}
	}
	transport := c.o.Transport
	if transport == nil {
		transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       trust.IssuerClient(roots),
			TLSHandshakeTimeout:   issuerTimeout,
			ResponseHeaderTimeout: issuerTimeout,
			IdleConnTimeout:       time.Minute,
			ForceAttemptHTTP2:     true,
		}
	}
	c.issuer = &http.Client{
		Timeout:   issuerTimeout,
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("redirects of the issuer are not followed")
		},
	}
	c.login = authn.NewLogin(authn.LoginOptions{
		Issuer:     wire.Issuer(c.config().OIDC.Issuer),
		ClientID:   c.config().OIDC.ClientID,
		Algorithms: c.config().OIDC.SigningAlgorithms,
		Client:     c.issuer,
		Now:        c.now,
		Fetched: func(issuer wire.Issuer, at time.Time, err error) {
			c.o.Metrics.KeyFetch(issuer, at, err)
			if err != nil {
				c.log.Warn("the issuer's keys cannot be fetched; logins wait, sessions go on", "issuer", issuer, "error", err)
			}
		},
	})
	return nil
}

// assertion is what the issuer says about a person now.
type assertion struct {
	person
	nonce   string
	issued  time.Time // zero for userinfo
	expires time.Time // zero for userinfo
}

// idToken verifies an ID token and maps its person.
func (c *Control) idToken(ctx context.Context, raw string) (assertion, *wire.Refusal, error) {
	token, err := c.login.Verify(ctx, raw)
	if err != nil {
		return assertion{}, c.refuseIDToken(err), err
	}
	p, refusal := c.person(token.Subject, token.Claims)
	if refusal != nil {
		return assertion{person: p}, refusal, nil
	}
	return assertion{person: p, nonce: token.Nonce, issued: token.Issued, expires: token.Expires}, nil, nil
}

func (c *Control) refuseIDToken(err error) *wire.Refusal {
	switch {
	case errors.Is(err, authn.ErrKeysUnreachable):
		return wire.Refuse(wire.ReasonIdPUnreachable, "try again when it is back", "the identity provider cannot be reached by the gateway")
	case errors.Is(err, authn.ErrExpired):
		return wire.Refuse(wire.ReasonTokenExpired, "kubectl zt login", "the identity provider's token has expired; the gateway's time is %s", c.now().UTC().Format(time.RFC3339))
	case errors.Is(err, authn.ErrTooLarge):
		return wire.Refuse(wire.ReasonTooLarge, hintGroups, "the identity provider's token is larger than %d bytes, most likely by its groups", authn.LoginLimit)
	default:
		return wire.Refuse(wire.ReasonTokenInvalid, "kubectl zt login", "the identity provider's token is not accepted")
	}
}

// userinfo asks the issuer about the bearer of an access token (OpenID Connect
// Core 5.3). The endpoint comes from the issuer's own discovery document, which
// is fetched each time: renewals by userinfo are rare.
func (c *Control) userinfo(ctx context.Context, accessToken string) (assertion, *wire.Refusal, error) {
	unreachable := wire.Refuse(wire.ReasonIdPUnreachable, "try again when it is back", "the identity provider cannot be reached by the gateway")
	var discovery struct {
		Issuer   string `json:"issuer"`
		Userinfo string `json:"userinfo_endpoint"`
	}
	address := strings.TrimSuffix(c.config().OIDC.Issuer, "/") + "/.well-known/openid-configuration"
	if err := c.getJSON(ctx, address, "", &discovery); err != nil {
		return assertion{}, unreachable, err
	}
	if discovery.Issuer != c.config().OIDC.Issuer {
		return assertion{}, unreachable, errors.New("discovery: the issuer calls itself something else")
	}
	if u, err := url.Parse(discovery.Userinfo); err != nil || u.Scheme != "https" || u.Host == "" {
		return assertion{}, wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "the identity provider has no userinfo"), nil
	}
	var claims map[string]json.RawMessage
	err := c.getJSON(ctx, discovery.Userinfo, accessToken, &claims)
	var status *statusError
	if errors.As(err, &status) && status.code < http.StatusInternalServerError {
		return assertion{}, wire.Refuse(wire.ReasonLoginRequired, "kubectl zt login", "the identity provider no longer vouches for this session"), err
	}
	if err != nil {
		return assertion{}, unreachable, err
	}
	var subject wire.Subject
	if json.Unmarshal(claims["sub"], &subject) != nil || subject == "" {
		return assertion{}, c.refuseIDToken(nil), errors.New("userinfo: no subject")
	}
	p, refusal := c.person(subject, claims)
	return assertion{person: p}, refusal, nil
}

// statusError is an answer that is not 200.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("answered %d", e.code) }

func (c *Control) getJSON(ctx context.Context, address, bearer string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := c.issuer.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return &statusError{response.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxIssuerAnswer+1))
	switch {
	case err != nil:
		return err
	case len(body) > maxIssuerAnswer:
		return errors.New("answered more than 1 MiB")
	case !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) || json.Unmarshal(body, into) != nil:
		// userinfo may be a signed JWT instead; we have not asked for one.
		return errors.New("answered something that is not a JSON object")
	}
	return nil
}
