package login

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
)

// callbackPath is registered with providers, with any loopback port.
const callbackPath = "/callback"

// guard stands before oauth2cli's handler on the loopback port. oauth2cli alone
// lets any local request with the wrong state or an error end the login, tells
// state and challenge to whoever asks for its index page, and does not know who
// sent the browser. The guard lets pass one request in the life of a login: a
// browser's own navigation to the callback, with the right state, from the right
// provider. Everything else is answered and forgotten.
type guard struct {
	host     string // 127.0.0.1:PORT
	state    string
	issuer   string
	promised bool        // the provider says that it sends iss (RFC 9207)
	end      func(error) // ends the login with a reason

	used atomic.Bool
}

// before is a middleware.
func (g *guard) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer") // the address holds the code
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		if status := g.stranger(r); status != 0 {
			http.Error(w, http.StatusText(status), status)
			return
		}
		g.callback(w, r, next)
	})
}

// stranger says with which status a request is refused before its parameters
// are looked at, or 0. No answer ever carries a CORS header, and a preflight is
// an OPTIONS like any other.
func (g *guard) stranger(r *http.Request) int {
	switch {
	case r.Host != g.host:
		return http.StatusForbidden // DNS rebinding
	case r.Header.Get("Origin") != "":
		return http.StatusForbidden // a page's script or form; navigations by GET have none
	case foreign(r.Header.Get("Sec-Fetch-Mode"), "navigate"), foreign(r.Header.Get("Sec-Fetch-Dest"), "document"):
		return http.StatusForbidden // an image, frame or fetch of a page
	case r.URL.Path != callbackPath:
		return http.StatusNotFound
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed
	case g.used.Load():
		return http.StatusGone
	default:
		return 0
	}
}

// foreign reports whether a Fetch Metadata header is there and not want. Older
// browsers send none.
func foreign(value, want string) bool { return value != "" && value != want }

func (g *guard) callback(w http.ResponseWriter, r *http.Request, next http.Handler) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || repeated(q, "state", "code", "iss", "error", "error_description") ||
		subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(g.state)) != 1 ||
		q.Has("code") == q.Has("error") {
		// Not the answer to our question, whoever sent it: keep waiting.
		http.Error(w, "This is not the sign-in that is waiting here.", http.StatusBadRequest)
		return
	}
	// From here on the state is spent.
	if !g.used.CompareAndSwap(false, true) {
		http.Error(w, http.StatusText(http.StatusGone), http.StatusGone)
		return
	}
	switch {
	case q.Has("iss") && q.Get("iss") != g.issuer:
		g.fail(w, untrusted("the answer came from %q, not from %q (iss)", q.Get("iss"), g.issuer))
	case g.promised && !q.Has("iss"):
		g.fail(w, untrusted("the answer does not say where it came from (iss), although the provider promises it"))
	case q.Has("error"):
		g.fail(w, &refusedError{said(q.Get("error"), q.Get("error_description"))})
	default:
		next.ServeHTTP(w, r)
	}
}

func repeated(q url.Values, names ...string) bool {
	for _, n := range names {
		if len(q[n]) > 1 {
			return true
		}
	}
	return false
}

// fail tells the browser, and then ends the login: the other way round the
// server would be gone before the page is out.
func (g *guard) fail(w http.ResponseWriter, reason error) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(failurePage)))
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(failurePage))
	_ = http.NewResponseController(w).Flush()
	g.end(reason)
}

// refusedError is what the provider said in the callback.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// The pages show nothing that came with the request, and run no script.
const (
	pageHead = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>kubectl zt</title>
<style>body { font-family: sans-serif; max-width: 30em; margin: 4em auto; padding: 0 1em; }</style></head>
<body>`
	successPage = pageHead + `<h1>Welcome back</h1>
<p>Your sign-in has reached kubectl. You may close this page and return to the terminal.</p></body></html>
`
	failurePage = pageHead + `<h1>Not signed in</h1>
<p>The sign-in failed. The terminal says why.</p></body></html>
`
)
