package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/client/profile"
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

func loginConfig(p *profile.Profile, c *clock) login.Config {
	return login.Config{
		Issuer: p.OIDC.Issuer, ClientID: p.OIDC.ClientID, Scopes: p.OIDC.Scopes, CAPEM: []byte(p.OIDC.CA), Now: c.Now,
	}
}

// personEvidence is what the issuer says about the person now: a refreshed ID token,
// else an access token for userinfo, else nothing.
type personEvidence struct {
	idToken, accessToken login.Secret
}

// refresh asks the issuer once. The new refresh token is kept before anything
// else can fail.
func (i *idp) refresh(ctx context.Context, p *profile.Profile, c *clock) (personEvidence, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.spent != nil {
		return personEvidence{}, i.spent
	}
	if i.tokens.RefreshToken == "" {
		return i.userinfo(c), nil
	}
	if i.client == nil {
		client, err := login.New(ctx, loginConfig(p, c))
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
	return i.userinfo(c), nil
}

// exhaust notes that the issuer's word no longer does.
func (i *idp) exhaust() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.spent = login.ErrReloginNeeded
}

// userinfo offers the access token while it lasts, which its issuer has said in
// seconds from then and x/oauth2 in this machine's time. i.mu is held.
func (i *idp) userinfo(c *clock) personEvidence {
	if i.tokens.AccessToken != "" && (i.tokens.Expiry.IsZero() || c.now().Add(spare).Before(i.tokens.Expiry)) {
		return personEvidence{accessToken: i.tokens.AccessToken}
	}
	return personEvidence{}
}

// revoke ends the login at the issuer. ErrUnsupported is for the caller to weigh.
func (i *idp) revoke(ctx context.Context, p *profile.Profile, c *clock) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	token := i.tokens.RefreshToken
	i.tokens = login.Tokens{}
	if token == "" {
		return nil
	}
	if i.client == nil {
		client, err := login.New(ctx, loginConfig(p, c))
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
