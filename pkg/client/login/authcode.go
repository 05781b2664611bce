package login

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/int128/oauth2cli"
	"golang.org/x/oauth2"
)

// portAttempts is how often a free port may be gone again when it is bound.
const portAttempts = 3

// AuthCode signs a person in through the browser. It opens a loopback port,
// shows the provider's page, waits for the callback and exchanges its code for
// tokens. nonce comes from the gateway's device check and must come back in the
// ID token. It blocks until the tokens are verified, ctx ends, or Config.Timeout
// has passed; nothing runs on after it returns.
func (c *Client) AuthCode(ctx context.Context, nonce string) (*Tokens, error) {
	if nonce == "" {
		return nil, refuse(opLogin, nil, "kubectl zt login", "a login needs a nonce")
	}
	// No list means that the provider does not say; a list without S256 means no,
	// and "plain" protects nothing (RFC 9700 section 2.1.1).
	if m := c.metadata.PKCE; len(m) > 0 && !slices.Contains(m, "S256") {
		return nil, refuse(opLogin, ErrUntrusted, askProvider, "the provider offers no PKCE with S256, only %q", m)
	}
	ctx = c.begin(ctx)
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	token, err := c.authorize(limited, nonce)
	var bind *net.OpError
	for i := 1; i < portAttempts && errors.As(err, &bind) && bind.Op == "listen"; i++ {
		token, err = c.authorize(limited, nonce)
	}
	if err == nil {
		var got *Tokens
		if got, err = c.loginTokens(limited, token, nonce); err == nil {
			return got, nil
		}
	}
	if ctx.Err() == nil && limited.Err() != nil {
		return nil, refuse(opLogin, ErrTooLate, "kubectl zt login", "nobody came back from the provider within %s", c.cfg.Timeout)
	}
	return nil, c.explain(ctx, opLogin, err)
}

// authorize is one attempt on one port: from the address in the browser to the
// token response. oauth2cli listens, waits and exchanges; the guard in front of
// its handler decides what may reach it.
func (c *Client) authorize(ctx context.Context, nonce string) (*oauth2.Token, error) {
	host, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	waiting, end := context.WithCancelCause(ctx)
	defer end(nil)
	g := &guard{
		host: host, state: rand.Text(),
		issuer: string(c.cfg.Issuer), promised: c.metadata.PromisesIssuer,
		end: end,
	}
	verifier := oauth2.GenerateVerifier()
	ready := make(chan string, 1)
	config := oauth2cli.Config{
		OAuth2Config:            c.oauth,
		State:                   g.state,
		AuthCodeOptions:         []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oidc.Nonce(nonce)},
		TokenRequestOptions:     []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)},
		LocalServerBindAddress:  []string{host},
		LocalServerCallbackPath: callbackPath,
		LocalServerSuccessHTML:  successPage,
		LocalServerMiddleware:   g.before,
		LocalServerReadyChan:    ready,
	}
	// By number: "localhost" may be ::1 in the browser, and then somebody else's
	// listener gets the code (RFC 8252 section 8.3).
	config.OAuth2Config.RedirectURL = "http://" + host + callbackPath
	address := config.OAuth2Config.AuthCodeURL(g.state, config.AuthCodeOptions...)
	defer c.show(waiting, ready, address)()

	token, err := oauth2cli.GetToken(waiting, config)
	if err == nil {
		return token, nil
	}
	if reason := context.Cause(waiting); reason != nil && ctx.Err() == nil {
		return nil, reason // the guard's, better than "context canceled"
	}
	end(err) // nobody shall wait for a port that never opened
	return nil, err
}

// freePort finds a port for the redirect, which the provider has to be told
// before oauth2cli listens. The address is not shown to anybody until it does.
func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("open a loopback port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// show waits until the callback is ready, writes the address and opens the
// browser, if there is one. The returned function ends all that and waits.
func (c *Client) show(ctx context.Context, ready <-chan string, address string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
		fmt.Fprintf(c.cfg.Stderr, "To sign in, open this page in a browser on this computer:\n\n    %s\n\n", address)
		if c.cfg.OpenBrowser == nil {
			return
		}
		if err := c.cfg.OpenBrowser(ctx, address); err != nil && ctx.Err() == nil {
			fmt.Fprintf(c.cfg.Stderr, "zt: cannot open a browser: %v\n", err)
		}
	}()
	return func() {
		select {
		case <-done: // an opener that is about to return may do so
		case <-time.After(time.Second):
		}
		cancel()
		<-done
	}
}
