package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// The kinds of Error, for errors.Is. Anything else is a plain failure, for
// instance a loopback port that cannot be opened. An Error for a context that
// ended is that context's error.
var (
	// ErrReloginNeeded: the refresh token is spent, expired or revoked.
	ErrReloginNeeded = errors.New("a new login is needed")
	// ErrRefused: the provider said no, or the person did.
	ErrRefused = errors.New("the provider refused")
	// ErrUntrusted: something did not prove to come from the provider, or the
	// provider breaks a rule that protects the login.
	ErrUntrusted = errors.New("the provider's answer cannot be trusted")
	// ErrUnreachable: no answer.
	ErrUnreachable = errors.New("the provider cannot be reached")
	// ErrTooLate: nobody finished the login in time.
	ErrTooLate = errors.New("the login was not finished in time")
	// ErrUnsupported: the provider has no such endpoint.
	ErrUnsupported = errors.New("the provider does not offer this")
)

// Error is a failure of a login. Its text is fit for a terminal: escaped, and
// cut at 1 KiB. It never holds a token, a code or the state.
type Error struct {
	op   string // what was tried
	text string // why it failed
	kind error  // what Unwrap shows, or nil
	hint string // next command, or empty
}

func (e *Error) Error() string { return fault.Escape(e.op + ": " + e.text) }

// Unwrap gives one of the kinds above, context.Canceled or nil, and never the
// original cause, whose text is the provider's.
func (e *Error) Unwrap() error { return e.kind }

// As lets fault.Of find exit code and hint.
func (e *Error) As(target any) bool {
	f, ok := target.(**fault.Fault)
	if !ok {
		return false
	}
	exit := fault.ExitFailed
	switch e.kind {
	case ErrReloginNeeded:
		exit = fault.ExitLogin
	case ErrRefused:
		exit = fault.ExitRefused
	case ErrUntrusted:
		exit = fault.ExitUntrusted
	case ErrUnreachable, ErrTooLate:
		exit = fault.ExitUnreachable
	case context.Canceled:
		exit = fault.ExitInterrupted
	}
	*f = fault.New(exit, e.hint, "%s", e.op+": "+e.text)
	return true
}

func refuse(op string, kind error, hint, format string, args ...any) *Error {
	return &Error{op: op, kind: kind, hint: hint, text: fmt.Sprintf(format, args...)}
}

// The next commands of those failures that have no better one.
const (
	askProvider = "ask the administrator of your identity provider"
	tryAgain    = "try again in a minute"
	checkWay    = "check the network, HTTPS_PROXY and NO_PROXY"
	loginAgain  = "kubectl zt login"
)

// reloginCodes are the ways in which providers say that a refresh token is of no
// more use (RFC 6749 section 5.2, OpenID Connect Core section 3.1.2.6).
var reloginCodes = []string{"invalid_grant", "login_required", "interaction_required", "consent_required"}

// explain turns whatever the libraries return into an Error. ctx is the
// operation's, made by begin, not that of one request in it.
func (c *Client) explain(ctx context.Context, op string, err error) *Error {
	var (
		own      *Error
		failed   *untrustedError
		refused  *refusedError
		answer   *oauth2.RetrieveError
		mismatch *oidc.IssuerMismatchError
		expired  *oidc.TokenExpiredError
		badCert  *tls.CertificateVerificationError
		netErr   net.Error
		urlErr   *url.Error
	)
	err = cause(ctx, err)
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(ctx.Err(), context.Canceled):
		return refuse(op, context.Canceled, "", "interrupted")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return refuse(op, ErrTooLate, tryAgain, "%v", ErrTooLate)
	case errors.As(err, &failed):
		return refuse(op, ErrUntrusted, askProvider, "%s", failed.text)
	case errors.As(err, &refused):
		return refuse(op, ErrRefused, loginAgain, "%s", refused.text)
	case errors.Is(err, errTooLong):
		return refuse(op, ErrUntrusted, askProvider, "%v", errTooLong)
	case errors.As(err, &answer):
		return answered(op, answer)
	case errors.As(err, &mismatch):
		return refuse(op, ErrUntrusted, "if its administrator confirms it: "+c.cfg.Trust, "the provider calls itself %q, the profile says %q", mismatch.Discovered, mismatch.Provided)
	case errors.As(err, &expired):
		return refuse(op, ErrUntrusted, "check the clock of this computer",
			"the id token expired at %s", expired.Expiry.UTC().Format("15:04:05 MST"))
	case errors.As(err, &badCert):
		return refuse(op, ErrUntrusted, "if its authority is new: "+c.cfg.Trust, "certificate of %s: %v", c.cfg.Issuer, badCert.Err)
	case errors.As(err, &netErr) && netErr.Timeout():
		return refuse(op, ErrUnreachable, checkWay, "%s did not answer in time", c.cfg.Issuer)
	case errors.As(err, &urlErr):
		for errors.As(urlErr.Err, &urlErr) {
		}
		return refuse(op, ErrUnreachable, checkWay, "%s does not answer: %v", c.cfg.Issuer, urlErr.Err)
	default:
		return refuse(op, nil, loginAgain, "%v", err)
	}
}

// answered is an error response of the provider.
func answered(op string, e *oauth2.RetrieveError) *Error {
	switch {
	case e.ErrorCode == "" && e.Response != nil && e.Response.StatusCode >= 500:
		return refuse(op, ErrUnreachable, tryAgain, "the provider answered %s", e.Response.Status)
	case e.ErrorCode == "" && e.Response != nil:
		return refuse(op, ErrRefused, askProvider, "the provider answered %s: %s", e.Response.Status, e.Body)
	case e.ErrorCode == "expired_token":
		return refuse(op, ErrTooLate, "kubectl zt login --device-code", "the code expired before it was confirmed")
	default:
		return refuse(op, ErrRefused, hintFor(e.ErrorCode), "%s", said(e.ErrorCode, e.ErrorDescription))
	}
}

// refreshFailed is explain for a refresh, where some answers end the session.
func (c *Client) refreshFailed(ctx context.Context, op string, err error) *Error {
	var answer *oauth2.RetrieveError
	if errors.As(cause(ctx, err), &answer) && slices.Contains(reloginCodes, answer.ErrorCode) {
		return refuse(op, ErrReloginNeeded, "kubectl zt login", "%s", said(answer.ErrorCode, answer.ErrorDescription))
	}
	return c.explain(ctx, op, err)
}

// hintFor tells what the person can do about an error code himself from what only
// the provider's administrator can (RFC 6749 sections 4.1.2.1 and 5.2).
func hintFor(code string) string {
	switch code {
	case "access_denied", "invalid_grant", "login_required", "interaction_required", "consent_required":
		return loginAgain
	case "server_error", "temporarily_unavailable", "slow_down":
		return tryAgain
	default:
		return askProvider
	}
}

func said(code, description string) string {
	if description == "" {
		return fmt.Sprintf("the provider says %q", code)
	}
	return fmt.Sprintf("the provider says %q: %q", code, description)
}
