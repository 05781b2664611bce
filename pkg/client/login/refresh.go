package login

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/wire"
)

// Refresh spends refreshToken, once: the request is not repeated, because a
// provider that rotates takes a second use for theft and ends the whole login.
// The caller sees to it that no two refreshes run at a time, that ctx is not one
// which ends with somebody's command, and that the new RefreshToken is kept
// before anything else. Also when an error comes with it: then the provider has
// rotated but its ID token could not be verified, for instance because its keys
// could not be fetched, and Tokens holds nothing but the RefreshToken.
//
// The ID token, where there is one, is verified but for its nonce; the caller or
// the gateway compares nonce and subject with those of the login. When the
// provider says that the login is over the error is ErrReloginNeeded.
func (c *Client) Refresh(ctx context.Context, refreshToken Secret) (*Tokens, error) {
	if refreshToken == "" {
		return nil, refuse(opRefresh, ErrReloginNeeded, "kubectl zt login", "there is no refresh token")
	}
	ctx = c.begin(ctx)
	source := c.oauth.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken.Reveal()})
	token, err := source.Token()
	if err != nil {
		return nil, c.refreshFailed(ctx, opRefresh, err)
	}
	got, err := c.tokens(ctx, token, anyNonce)
	if err != nil {
		return &Tokens{RefreshToken: Secret(token.RefreshToken)}, c.explain(ctx, opRefresh, err)
	}
	return got, nil
}

// Userinfo is what the provider says about the owner of an access token.
type Userinfo struct {
	Subject       wire.Subject
	Email         string
	EmailVerified bool
}

// Userinfo asks the provider who accessToken belongs to. The answer proves
// something only next to an ID token with the same subject (OpenID Connect Core
// section 5.3.2), which the caller compares.
func (c *Client) Userinfo(ctx context.Context, accessToken Secret) (*Userinfo, error) {
	if c.provider.UserInfoEndpoint() == "" {
		return nil, refuse(opUserinfo, ErrUnsupported, askProvider, "%v", ErrUnsupported)
	}
	ctx = c.begin(ctx)
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: accessToken.Reveal()})
	info, err := c.provider.UserInfo(ctx, source)
	if err != nil {
		return nil, c.explain(ctx, opUserinfo, err)
	}
	if info.Subject == "" {
		return nil, refuse(opUserinfo, ErrUntrusted, askProvider, "the answer has no subject")
	}
	return &Userinfo{Subject: wire.Subject(info.Subject), Email: info.Email, EmailVerified: info.EmailVerified}, nil
}

// Revoke ends a refresh token, and what grew out of it, at the provider
// (RFC 7009). ErrUnsupported means that the provider has no such endpoint.
func (c *Client) Revoke(ctx context.Context, token Secret) error {
	if c.metadata.Revocation == "" {
		return refuse(opRevoke, ErrUnsupported, askProvider, "%v", ErrUnsupported)
	}
	ctx = c.begin(ctx)
	form := url.Values{
		"token":           {token.Reveal()},
		"token_type_hint": {"refresh_token"},
		"client_id":       {c.cfg.ClientID},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.metadata.Revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return c.explain(ctx, opRevoke, err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := ctx.Value(oauth2.HTTPClient).(*http.Client).Do(r)
	if err != nil {
		return c.explain(ctx, opRevoke, err)
	}
	defer resp.Body.Close()
	// The body says nothing that is needed: 200 is the whole answer (section 2.2).
	if resp.StatusCode != http.StatusOK {
		return c.explain(ctx, opRevoke, &oauth2.RetrieveError{Response: resp, Body: []byte("revocation failed")})
	}
	return nil
}
