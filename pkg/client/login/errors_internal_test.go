package login

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// Whatever goes wrong at the provider, the person is told what to do next.
func TestEveryFailureHasItsNextCommand(t *testing.T) {
	t.Parallel()
	answer := func(status int, code string) error {
		return &oauth2.RetrieveError{ErrorCode: code, Response: &http.Response{StatusCode: status, Status: http.StatusText(status)}}
	}
	c := &Client{cfg: Config{Issuer: "https://idp.test", Trust: "kubectl zt trust 'https://gw.zt.test:443#sha256=00'"}}
	for _, tc := range []struct {
		name string
		err  error
		exit fault.Exit
		hint string
	}{
		{"down", answer(502, ""), fault.ExitUnreachable, tryAgain},
		{"busy", answer(400, "temporarily_unavailable"), fault.ExitRefused, tryAgain},
		{"no client of his", answer(400, "invalid_client"), fault.ExitRefused, askProvider},
		{"not a word of OAuth", answer(404, ""), fault.ExitRefused, askProvider},
		{"the person said no", answer(400, "access_denied"), fault.ExitRefused, loginAgain},
		{"code expired", answer(400, "expired_token"), fault.ExitUnreachable, "kubectl zt login --device-code"},
		{"no proof", untrusted("nonce"), fault.ExitUntrusted, askProvider},
		{"refused at the callback", &refusedError{text: "no"}, fault.ExitRefused, loginAgain},
		{"endless", errTooLong, fault.ExitUntrusted, askProvider},
		{"another issuer", &oidc.IssuerMismatchError{Provided: "a", Discovered: "b"}, fault.ExitUntrusted, "if its administrator confirms it: " + c.cfg.Trust},
		{"old id token", &oidc.TokenExpiredError{Expiry: time.Now()}, fault.ExitUntrusted, "check the clock of this computer"},
		{"certificate", &tls.CertificateVerificationError{Err: errors.New("unknown authority")}, fault.ExitUntrusted, "if its authority is new: " + c.cfg.Trust},
		{"silent", &net.DNSError{IsTimeout: true}, fault.ExitUnreachable, checkWay},
		{"no route", &url.Error{Op: "Get", URL: "https://idp.test", Err: errors.New("no route to host")}, fault.ExitUnreachable, checkWay},
		{"no port", errors.New("listen"), fault.ExitFailed, loginAgain},
	} {
		f := fault.Of(c.explain(t.Context(), opLogin, tc.err))
		if f.Exit != tc.exit || len(f.Hints) != 1 || f.Hints[0] != tc.hint {
			t.Errorf("%s: %+v, want exit %d and %q", tc.name, f, tc.exit, tc.hint)
		}
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if f := fault.Of(c.explain(late, opLogin, errors.New("x"))); len(f.Hints) != 1 || f.Hints[0] != tryAgain {
		t.Errorf("%+v", f)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if f := fault.Of(c.explain(stopped, opLogin, errors.New("x"))); f.Exit != fault.ExitInterrupted || len(f.Hints) != 0 {
		t.Errorf("%+v", f)
	}
}
