package stream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/kube-zt/zt/pkg/wire"
)

// dropped are response headers that could act on the client's side for somebody
// else than the cluster: a cookie for the vhost, another way to it.
var dropped = []string{
	"Set-Cookie",
	"Set-Cookie2",
	"Alt-Svc",
	"Clear-Site-Data",
	"Strict-Transport-Security",
	"Public-Key-Pins",
	"Proxy-Authenticate",
	"Proxy-Authentication-Info",
	"Refresh",
	"X-Accel-Redirect",
}

// clean takes out of an answer what must not pass and refuses what must not be
// an answer. Proxied says that an application may have answered.
func (u *Upstream) clean(response *http.Response, proxied bool) error {
	for _, name := range dropped {
		delete(response.Header, name)
	}
	if !proxied {
		delete(response.Header, "Www-Authenticate")
	}
	switch {
	case response.StatusCode < http.StatusOK:
		// To net/http no answer at all, so that the client would get a 200.
		return failure(KindUpgrade, fmt.Errorf("answered %03d", response.StatusCode), wire.ReasonUpstream, askAdmin,
			"the cluster's API server answered with a status that is none")
	case redirect(response.StatusCode):
		if !proxied || !relative(response.Header["Location"]) {
			return failure(KindRedirect, errors.New("upstream redirects"), wire.ReasonUpstream, askAdmin,
				"the cluster's API server sent a redirect, which zt neither follows nor passes on")
		}
	case response.StatusCode == http.StatusForbidden && !proxied:
		// What an application says of anybody is not about the gateway, and would
		// have the proof of its rights asked for again as often as it likes. The
		// API server's own refusal of a proxied request passes as it is.
		return u.stale(response)
	}
	return nil
}

// redirect reports whether a client would go elsewhere after code.
func redirect(code int) bool {
	return code >= 300 && code < 400 && code != http.StatusNotModified
}

// relative reports whether a Location stays on this host.
func relative(values []string) bool {
	if len(values) != 1 || values[0] == "" {
		return false
	}
	location := values[0]
	if strings.HasPrefix(location, "//") || strings.ContainsAny(location, "\\\r\n\t") {
		return false
	}
	// A scheme ends at a colon before any slash, question mark or hash.
	end := strings.IndexAny(location, ":/?#")
	return end < 0 || location[end] != ':'
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
