package login

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/mdp/qrterminal/v3"
	"golang.org/x/oauth2"
)

// Bounds on what a provider may say about the pace of a device login.
const (
	maxInterval = 5 * time.Minute
	maxLife     = 30 * time.Minute
)

// DeviceCode signs a person in on another device (RFC 8628): it shows an address
// and a code and waits until somebody has typed the code there. The code is
// never put into an address or a QR code, and nothing is opened: a person who
// did not type a code should not find himself approving one (section 5.4).
//
// The ID token carries no nonce, so the gateway treats it differently from one of
// AuthCode. DeviceCode blocks until the tokens are verified, ctx ends, or the
// code has expired.
func (c *Client) DeviceCode(ctx context.Context) (*Tokens, error) {
	if c.oauth.Endpoint.DeviceAuthURL == "" {
		return nil, refuse(opDevice, ErrUnsupported, "kubectl zt login", "%v", ErrUnsupported)
	}
	ctx = c.begin(ctx)
	grant, err := c.oauth.DeviceAuth(ctx)
	if err != nil {
		return nil, c.explain(ctx, opDevice, err)
	}
	if err := c.checkGrant(grant); err != nil {
		return nil, c.explain(ctx, opDevice, err)
	}
	c.showCode(grant)
	limited, cancel := context.WithDeadline(ctx, grant.Expiry)
	defer cancel()
	token, err := c.poll(limited, grant)
	if err == nil {
		var got *Tokens
		if got, err = c.loginTokens(limited, token, anyNonce); err == nil {
			return got, nil
		}
	}
	if ctx.Err() == nil && !time.Now().Before(grant.Expiry) {
		return nil, refuse(opDevice, ErrTooLate, "kubectl zt login --device-code", "the code expired before it was confirmed")
	}
	return nil, c.explain(ctx, opDevice, err)
}

// poll asks until there is an answer. x/oauth2 honours the interval and
// slow_down; a poll that times out halves the pace (section 3.5) where x/oauth2
// would give up. The end of the code looks like a timeout too and is none.
func (c *Client) poll(ctx context.Context, grant *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	for {
		token, err := c.oauth.DeviceAccessToken(ctx, grant)
		var slow net.Error
		if err == nil || !errors.As(cause(ctx, err), &slow) || !slow.Timeout() ||
			ctx.Err() != nil || !time.Now().Before(grant.Expiry) {
			return token, err
		}
		grant.Interval *= 2
	}
}

// checkGrant makes the provider's answer safe to show and to follow. x/oauth2
// panics on a negative interval.
func (c *Client) checkGrant(g *oauth2.DeviceAuthResponse) error {
	const fallback = 5 // seconds, section 3.2
	if g.Interval == 0 {
		g.Interval = fallback
	}
	if g.Interval < 0 || g.Interval > int64(maxInterval/time.Second) {
		return untrusted("polling interval of %d seconds", g.Interval)
	}
	if latest := time.Now().Add(maxLife); g.Expiry.IsZero() || g.Expiry.After(latest) {
		g.Expiry = latest
	}
	if g.DeviceCode == "" {
		return untrusted("no device code in the answer")
	}
	if len(g.UserCode) == 0 || len(g.UserCode) > 64 || !printableASCII(g.UserCode) {
		return untrusted("code %q is nothing to type", g.UserCode)
	}
	if err := checkEndpoint("verification_uri", g.VerificationURI); err != nil {
		return untrusted("%v", err)
	}
	if len(g.VerificationURI) > 512 || !printableASCII(g.VerificationURI) {
		return untrusted("verification_uri %q is nothing to type", g.VerificationURI)
	}
	if u, err := url.Parse(g.VerificationURI); err != nil || u.RawQuery != "" && u.Query().Has("user_code") {
		return untrusted("verification_uri %q has the code in it", g.VerificationURI)
	}
	return nil
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func (c *Client) showCode(g *oauth2.DeviceAuthResponse) {
	fmt.Fprintf(c.cfg.Stderr, "To sign in, open this page on any device:\n\n    %s\n\nand enter the code:\n\n    %s\n\n", g.VerificationURI, g.UserCode)
	if !c.cfg.NoQR {
		qrterminal.GenerateHalfBlock(g.VerificationURI, qrterminal.L, c.cfg.Stderr)
	}
	fmt.Fprintln(c.cfg.Stderr, "Only enter a code that you have asked for yourself.")
}
