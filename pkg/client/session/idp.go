package session

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/trust"
)

// idp is the person's login at his issuer. Only a flight that holds mu talks to
// the issuer, so there is one writer of the refresh token.
type idp struct {
	mu     sync.Mutex
	client *login.Client // nil after a handover, until it is needed
	tokens login.Tokens
	// spent is set when the issuer has said that the login is over.
	spent error
}

// loginConfig is the issuer of p, reached the way the gateway is: through the
// corporate proxy, and never through the agent's own port, which the person may
// have put into HTTPS_PROXY for kubectl's sake.
func (s *Session) loginConfig(p *profile.Profile) login.Config {
	c := login.Config{
		Issuer: p.OIDC.Issuer, ClientID: p.OIDC.ClientID, Scopes: p.OIDC.Scopes, CAPEM: []byte(p.OIDC.CA), Now: s.clock.Now, Trust: trustCommand(p),
	}
	var roots *x509.CertPool // the system's
	if p.OIDC.CA != "" {
		ca, err := trust.ParseCertificates([]byte(p.OIDC.CA))
		if err != nil {
			return c // login.New says what is wrong with it
		}
		roots = poolOf(ca...)
	}
	c.Transport = &http.Transport{
		DialContext: s.deps.Dial, TLSClientConfig: trust.IssuerClient(roots), TLSHandshakeTimeout: answerLimit,
		MaxResponseHeaderBytes: 64 << 10, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true,
	}
	return c
}

// personEvidence is what the issuer says about the person now: a refreshed ID token,
// else an access token for userinfo, else nothing.
type personEvidence struct {
	idToken, accessToken login.Secret
}

// refresh asks the issuer once. The new refresh token is kept before anything
// else can fail.
func (i *idp) refresh(ctx context.Context, issuer login.Config, now func() time.Time) (personEvidence, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.spent != nil {
		return personEvidence{}, i.spent
	}
	if i.tokens.RefreshToken == "" {
		return i.userinfo(now()), nil
	}
	if i.client == nil {
		client, err := login.New(ctx, issuer)
		if err != nil {
			return personEvidence{}, err
		}
		i.client = client
	}
	got, err := i.client.Refresh(ctx, i.tokens.RefreshToken)
	if err != nil {
		if got != nil && got.RefreshToken != "" { // rotated all the same
			i.tokens.RefreshToken = got.RefreshToken
		}
		if errors.Is(err, login.ErrReloginNeeded) {
			i.spent = err
			i.tokens = login.Tokens{}
		}
		return personEvidence{}, err
	}
	if got.RefreshToken == "" { // a provider that does not rotate
		got.RefreshToken = i.tokens.RefreshToken
	}
	i.tokens = *got
	if got.IDToken != "" {
		return personEvidence{idToken: got.IDToken}, nil
	}
	return i.userinfo(now()), nil
}

// exhaust notes that the issuer's word no longer does.
func (i *idp) exhaust() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.spent = login.ErrReloginNeeded
}

// userinfo offers the access token while it lasts, which its issuer has said in
// seconds from then and x/oauth2 in this machine's time. i.mu is held.
func (i *idp) userinfo(now time.Time) personEvidence {
	if i.tokens.AccessToken != "" && (i.tokens.Expiry.IsZero() || now.Add(spare).Before(i.tokens.Expiry)) {
		return personEvidence{accessToken: i.tokens.AccessToken}
	}
	return personEvidence{}
}

// revoke ends the login at the issuer. ErrUnsupported is for the caller to weigh.
func (i *idp) revoke(ctx context.Context, issuer login.Config) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	token := i.tokens.RefreshToken
	i.tokens = login.Tokens{}
	if token == "" {
		return nil
	}
	if i.client == nil {
		client, err := login.New(ctx, issuer)
		if err != nil {
			return err
		}
		i.client = client
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return i.client.Revoke(ctx, token)
}

func (i *idp) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.client != nil {
		i.client.Close()
		i.client = nil
	}
	i.tokens = login.Tokens{}
}
