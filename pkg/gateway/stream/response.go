package stream

import (
	"bytes"
	"errors"
	"io"
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
func clean(response *http.Response, proxied bool) error {
	for _, name := range dropped {
		delete(response.Header, name)
	}
	if !proxied {
		delete(response.Header, "Www-Authenticate")
	}
	switch {
	case redirect(response.StatusCode):
		if !proxied || !relative(response.Header["Location"]) {
			return failure(KindRedirect, errors.New("upstream redirects"), wire.ReasonUpstream, askAdmin,
				"the cluster's API server sent a redirect, which zt neither follows nor passes on")
		}
	case response.StatusCode == http.StatusForbidden && !proxied:
		// What an application says of anybody is not about the gateway, and would
		// have the proof of its rights asked for again as often as it likes. The
		// API server's own refusal of a proxied request passes as it is.
		return stale(response)
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

// statusLimit is how much of a 403 is looked at, in bytes.
const statusLimit = 16 << 10

// stale finds a 403 that is about the gateway's own account: then it is not the
// person who lacks a right, and what he would read names an account that he has
// never heard of.
func stale(response *http.Response) error {
	head, err := io.ReadAll(io.LimitReader(response.Body, statusLimit))
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), response.Body), response.Body}
	if err != nil || !aboutOurselves(head) {
		return nil
	}
	return failure(KindRBAC, errors.New(clip(string(head), 1024)), wire.ReasonRBACStale,
		"tell your administrator to apply what `zt-gateway rbac` prints",
		"zt's policy allows this, but the gateway's account in the cluster may not do it in your name")
}

// aboutOurselves matches the text of KEP-5284's and of the legacy check, in
// whatever encoding the Status has: the message stands in all of them as it is.
func aboutOurselves(body []byte) bool {
	_, after, ok := bytes.Cut(body, []byte(`: User `))
	if !ok || !bytes.Contains(after[:min(len(after), 512)], []byte("system:serviceaccount:")) {
		return false
	}
	return bytes.Contains(after, []byte(" cannot impersonate"))
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
