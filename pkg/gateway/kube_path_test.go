package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/wire"
)

// readers lets the role all read pods and secrets, anywhere, and nothing else.
var readers = strings.Replace(everything, `  - {verbs: ["*"], apiGroups: ["*"], resources: ["*", "*/*", nodes/proxy]}
  - {verbs: ["*"], nonResourceURLs: ["*"]}
`, `  - {verbs: [get, list], apiGroups: [""], resources: [pods, secrets, services]}
`, 1)

// send asks for a path, byte for byte, over HTTP/1.1.
func (p *person) send(method, target string) *http.Response {
	p.rig.t.Helper()
	response, body, err := p.raw(method + " " + target + " HTTP/1.1\r\nHost: " + p.rig.kube.host + "\r\nAuthorization: Bearer " + p.token() + "\r\nConnection: close\r\n\r\n")
	must(p.rig.t, err)
	response.Body = io.NopCloser(strings.NewReader(body))
	return response
}

func TestV110(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, path := range []string{
		"/api/v1/namespaces/dev/../prod/secrets",
		"/api/v1/namespaces/dev/%2e%2e/prod/secrets",
		"/api/v1/namespaces/dev/%2E%2e/prod/secrets",
		"/api/v1/namespaces/dev/.%2e/prod/secrets",
		"/api/v1/namespaces/dev/./secrets",
		"/api/v1/namespaces/dev/..;/prod/secrets",
		"/api/v1/namespaces/dev;x=y/secrets",
		"//api//v1/secrets",
		"/api//v1/secrets",
		"/api/v1/namespaces/dev//secrets",
		"/api/v1/namespaces/dev%2f..%2fprod/secrets",
		"/api/v1/namespaces/dev%2Fsecrets",
		`/api/v1/namespaces/dev\..\prod/secrets`,
		"/api/v1/namespaces/dev%5c..%5cprod/secrets",
		"/api/v1/namespaces/dev%00/secrets",
		"/api/v1/namespaces/dev%2500/secrets",
		"/api/v1/namespaces/dev%0a/secrets",
		"/api/v1/namespaces/dev/%70ods",
		"/api/v1/namespaces/dev/pods/x/%65xec",
		"/api/v1/namespaces/dev/pods/x/exec/",
		"/api/v1/namespaces/dev/pods/",
		"/api/v1/namespaces/dev/pods/x/../../services/y/proxy/",
		"/api/v1/namespaces/dev/services%2fx/proxy/a",
		"/api/v1/namespaces/dev/services/..%2fx/proxy/a",
		// Behind a proxy sub-resource, too, nothing may lead out of it.
		"/api/v1/namespaces/dev/services/x/proxy/a/../b",
		"/api/v1/namespaces/dev/services/x/proxy/..",
		"/api/v1/namespaces/dev/services/x/proxy/./b",
		"/api/v1/namespaces/dev/services/x/proxy/..;x=y/b",
		"/api/v1/namespaces/dev/services/x/proxy/a%2f..%2f..%2fb",
		"/api/v1/namespaces/dev/services/x/proxy/a%252f%252e%252e%252fb",
		"/api/v1/namespaces/dev/services/x/proxy/%25/%252e%252e/b",
		"/api/v1/nodes/n/proxy/%2e%2e/x",
		"/api/v1/nodes/n/proxy/%2E./x",
		"/api/v1/nodes/n/proxy/x/%2e",
		"/apis/example.com/v1/namespaces/dev/things/x/proxy/a%5cb",
		`/api/v1/nodes/n/proxy/a\b`,
		"https://" + r.kube.host + "/api/v1/pods",
		"http://evil.test/api/v1/pods",
	} {
		if got := alice.send(http.MethodGet, path); got.StatusCode != http.StatusBadRequest {
			body, _ := io.ReadAll(got.Body)
			t.Errorf("%s: %d %s", path, got.StatusCode, body)
		}
		r.upstream.none()
	}
	for _, path := range []string{
		"/api/v1/namespaces/dev/pods/a%20b", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
		"/", "/apis/", "/api/v1/pods?limit=500&labelSelector=a%3Db",
		// Behind a proxy sub-resource the path is the application's.
		"/api/v1/namespaces/dev/services/https:x:443/proxy/", "/api/v1/namespaces/dev/services/x/proxy/a/b//c%2f%00;d/",
		"/api/v1/nodes/n/proxy/...%2f.a/100%25", "/apis/example.com/v1/namespaces/dev/things/x/proxy/a%2Fb..",
	} {
		got := alice.send(http.MethodGet, path)
		if got.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(got.Body)
			t.Errorf("%s: %d %s", path, got.StatusCode, body)
			continue
		}
		if seen := r.upstream.one(); seen.URI != path {
			t.Errorf("judged %s, sent %s", path, seen.URI)
		}
	}
}

func TestV111(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: readers})
	alice := r.person("alice@example.com")
	for _, path := range []string{"/APIs/apps/v1/deployments", "/Api/v1", "/API/v1/pods", "/apI", "/OpenAPI/v3"} {
		got := alice.get(path)
		if got.code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, got.code, got.body)
			continue
		}
		if record := r.outcome(got.decision); record.Resource != "" || record.Verb != "get" || record.Decision != audit.Refused {
			t.Errorf("%s judged as %s %s, %s", path, record.Verb, record.Resource, record.Decision)
		}
		r.upstream.none()
	}
	// A version is any word: what is asked for is judged, and there is no such version.
	for path, want := range map[string]int{"/api/V1/pods": http.StatusOK, "/api/V1/configmaps": http.StatusForbidden} {
		verb, resource, _, code := alice.judged(http.MethodGet, path)
		if verb != "list" || resource != path[len("/api/V1/"):] || code != want {
			t.Errorf("%s judged as %s %s, answered %d", path, verb, resource, code)
		}
	}
	if seen := r.upstream.one(); seen.URI != "/api/V1/pods" {
		t.Errorf("upstream was asked for %s", seen.URI)
	}
}

func TestV112(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: readers})
	alice := r.person("alice@example.com")
	for _, path := range []string{"/logs", "/logs/x", "/debug/pprof", "/debug/pprof/heap", "/metrics", "/.well-known/openid-configuration", "/anything", "/healthz", "/"} {
		if got := alice.get(path); got.code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
		r.upstream.none()
	}
	for _, path := range []string{"/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1", "/openapi/v3", "/openapi/v2", "/version"} {
		if got := alice.get(path); got.code != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.code, got.body)
		}
		r.upstream.one()
	}
	r.manifests(strings.Replace(readers, "  - {verbs: [get, list]", "  - {verbs: [get], nonResourceURLs: [/metrics]}\n  - {verbs: [get, list]", 1))
	if got := alice.get("/metrics"); got.code != http.StatusOK {
		t.Errorf("listed: %d %s", got.code, got.body)
	}
}

// judged sends a request that is refused or not and returns how it was judged.
func (p *person) judged(method, path string) (verb, resource, subresource string, code int) {
	p.rig.t.Helper()
	before := len(p.rig.records())
	response := p.send(method, path)
	records := p.rig.records()
	p.rig.eventually("a record", func() bool {
		records = p.rig.records()
		return len(records) > before && records[len(records)-1].Code != 0
	})
	last := records[len(records)-1]
	return last.Verb, last.Resource, last.Subresource, response.StatusCode
}

func TestV113(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: readers})
	alice := r.person("alice@example.com")
	for path, want := range map[string]string{
		"/api/v1/watch/namespaces/prod/secrets":        "watch",
		"/api/v1/watch/secrets":                        "watch",
		"/api/v1/watch/namespaces/prod/pods/x":         "watch",
		"/api/v1/proxy/namespaces/prod/pods/x":         "proxy",
		"/api/v1/proxy/namespaces/prod/services/x/a/b": "proxy",
		"/api/v1/proxy/nodes/x":                        "proxy",
	} {
		verb, _, _, code := alice.judged(http.MethodGet, path)
		if verb != want || code != http.StatusForbidden {
			t.Errorf("%s: judged %s, answered %d", path, verb, code)
		}
	}
	r.upstream.none()
}

func TestV114(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: readers})
	alice := r.person("alice@example.com")
	for query, want := range map[string]string{
		"watch=1": "watch", "watch=true": "watch", "watch=True": "watch", "watch=t": "watch", "watch": "watch", "watch=": "watch", "watch=yes": "watch",
		"watch=1&watch=0": "watch",
		"watch=0":         "list", "watch=false": "list", "Watch=1": "list",
	} {
		verb, _, _, code := alice.judged(http.MethodGet, "/api/v1/pods?"+query)
		if verb != want || (code == http.StatusForbidden) != (want == "watch") {
			t.Errorf("?%s: judged %s, answered %d", query, verb, code)
		}
	}
	// What is dropped here and read there, or read in part.
	for _, query := range []string{"limit=1;watch=1", "limit=x&watch=1", "timeoutSeconds=1e3", "labelSelector=a(b", "fieldSelector=a", "x=%zz"} {
		if got := alice.send(http.MethodGet, "/api/v1/pods?"+query); got.StatusCode != http.StatusBadRequest {
			t.Errorf("?%s: %d", query, got.StatusCode)
		}
	}
}

func TestV115(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: readers})
	alice := r.person("alice@example.com")
	for _, test := range []struct{ method, path, verb, resource, sub string }{
		{"DELETE", "/api/v1/namespaces/dev/pods", "deletecollection", "pods", ""},
		{"DELETE", "/api/v1/namespaces/dev/pods/x", "delete", "pods", ""},
		{"HEAD", "/api/v1/namespaces/dev/configmaps/x", "get", "configmaps", ""},
		{"GET", "/api/v1/namespaces/dev/pods/x/status", "get", "pods", "status"},
		{"PUT", "/apis/apps/v1/namespaces/dev/deployments/x/scale", "update", "deployments", "scale"},
		{"POST", "/api/v1/namespaces/dev/serviceaccounts/x/token", "create", "serviceaccounts", "token"},
		{"PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval", "update", "certificatesigningrequests", "approval"},
		{"POST", "/api/v1/namespaces/dev/pods/x/eviction", "create", "pods", "eviction"},
		{"POST", "/api/v1/namespaces/dev/pods/x/binding", "create", "pods", "binding"},
		{"PATCH", "/api/v1/namespaces/dev/pods/x/ephemeralcontainers", "patch", "pods", "ephemeralcontainers"},
		{"PUT", "/api/v1/namespaces/dev/finalize", "update", "namespaces", "finalize"},
		{"GET", "/api/v1/namespaces/dev/pods/x/exec", "get", "pods", "exec"},
	} {
		verb, resource, sub, code := alice.judged(test.method, test.path)
		if verb != test.verb || resource != test.resource || sub != test.sub || code != http.StatusForbidden {
			t.Errorf("%s %s: judged %s %s/%s, answered %d", test.method, test.path, verb, resource, sub, code)
		}
	}
	r.upstream.none()
	for _, method := range []string{"OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"} {
		if got := alice.send(method, "/api/v1/pods"); got.StatusCode != http.StatusMethodNotAllowed && got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", method, got.StatusCode)
		}
	}
	r.upstream.none()
}

// answers writes bytes on a new HTTP/1.1 stream and reads all that comes, until
// the gateway closes it (closed) or says nothing for a while.
func (p *person) answers(t *testing.T, text string) (codes []int, closed bool) {
	t.Helper()
	conn := p.dial("http/1.1")
	defer conn.Close()
	_, _ = io.WriteString(conn, text) // the gateway may close before it is through
	reader := bufio.NewReader(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return codes, !errors.Is(err, os.ErrDeadlineExceeded)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		codes = append(codes, response.StatusCode)
	}
}

func TestV117(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{http1: true})
	alice := r.person("alice@example.com")
	head := func(lines string) string {
		return "POST /api/v1/namespaces/dev/pods HTTP/1.1\r\nHost: " + r.kube.host + "\r\nAuthorization: Bearer " + alice.token() + "\r\n" + lines + "\r\n"
	}
	// It would be let in if it were taken for a request.
	smuggled := "GET /api/v1/namespaces/dev/pods/smuggled HTTP/1.1\r\nHost: " + r.kube.host + "\r\nAuthorization: Bearer " + alice.token() + "\r\nConnection: close\r\n\r\n"

	t.Run("two honest requests", func(t *testing.T) {
		codes, closed := alice.answers(t, head("Content-Length: 5\r\n")+"hello"+smuggled)
		if seen := r.upstream.seen(); !slices.Equal(codes, []int{200, 200}) || !closed || len(seen) != 2 {
			t.Errorf("%v, closed %t; upstream saw %+v", codes, closed, seen)
		}
	})
	t.Run("both lengths", func(t *testing.T) {
		// The other length would end the body within the first chunk's head.
		codes, _ := alice.answers(t, head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n")+"5\r\nhello\r\n0\r\n\r\n"+smuggled)
		got := r.upstream.one()
		if !slices.Equal(codes, []int{200}) || got.Body != "hello" || got.Length != -1 || got.Header.Get("Content-Length") != "" || !slices.Equal(got.Transfer, []string{"chunked"}) {
			t.Errorf("%v; upstream got %+v", codes, got)
		}
	})
	for name, test := range map[string]struct {
		bytes string
		want  int
	}{
		"two differing lengths":  {head("Content-Length: 3\r\nContent-Length: 5\r\n") + "hello", 400},
		"a list of lengths":      {head("Content-Length: 5, 3\r\n") + "hello", 400},
		"unknown coding":         {head("Transfer-Encoding: cow\r\n") + "hello", 501},
		"two codings":            {head("Transfer-Encoding: gzip, chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", 501},
		"signed length":          {head("Content-Length: +5\r\n") + "hello", 400},
		"bare LF in chunk size":  {head("Transfer-Encoding: chunked\r\n") + "5\nhello\r\n0\r\n\r\n", 400},
		"bare LF after a chunk":  {head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\n0\r\n\r\n", 400},
		"chunk size with spaces": {head("Transfer-Encoding: chunked\r\n") + "5 \t;x\r\nhello\r\n0\r\n\r\n", 400},
		"negative chunk":         {head("Transfer-Encoding: chunked\r\n") + "-5\r\nhello\r\n0\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			codes, closed := alice.answers(t, test.bytes+smuggled)
			if len(codes) > 1 || !closed {
				t.Errorf("answered %v, closed %t", codes, closed)
			}
			if !slices.Equal(codes, []int{test.want}) {
				t.Errorf("answered %v, want %d", codes, test.want)
			}
			// A request that breaks off in its body was never complete.
			if whole := slices.DeleteFunc(r.upstream.seen(), func(s seen) bool { return s.Err != nil }); len(whole) > 0 {
				t.Errorf("upstream saw %+v", whole)
			}
		})
	}
}

// frames speaks HTTP/2 by hand, as no client library would.
type frames struct {
	t      *testing.T
	framer *http2.Framer
	buffer bytes.Buffer
	coder  *hpack.Encoder
}

func (p *person) frames(t *testing.T) *frames {
	t.Helper()
	conn := p.dial("h2")
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	f := &frames{t: t, framer: http2.NewFramer(conn, bufio.NewReader(conn))}
	f.coder = hpack.NewEncoder(&f.buffer)
	f.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(t, f.framer.WriteSettings())
	return f
}

func (f *frames) headers(end bool, fields ...string) {
	f.t.Helper()
	f.buffer.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(f.t, f.coder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	must(f.t, f.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.buffer.Bytes(), EndHeaders: true, EndStream: end}))
}

// result is the status of the stream, or "reset", or "closed".
func (f *frames) result() string {
	for {
		frame, err := f.framer.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.GoAwayFrame:
			return "closed"
		}
	}
}

func TestV118(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	authority, token := r.kube.host, "Bearer "+alice.token()

	for name, test := range map[string]struct {
		fields []string
		want   string
	}{
		"nothing wrong":            {[]string{"accept", "x"}, "200"},
		"line break in a value":    {[]string{"user-agent", "x\r\nImpersonate-User: admin"}, "reset"},
		"CR in a value":            {[]string{"accept", "x\ry"}, "reset"},
		"LF in a value":            {[]string{"accept", "x\ny"}, "reset"},
		"NUL in a value":           {[]string{"accept", "x\x00y"}, "reset"},
		"capital name":             {[]string{"Accept", "x"}, "reset"},
		"line break in a name":     {[]string{"acc\r\nept", "x"}, "reset"},
		"a second path":            {[]string{":path", "/api/v1/nodes"}, "reset"},
		"connection header":        {[]string{"connection", "keep-alive, impersonate-user"}, "400"},
		"transfer-encoding":        {[]string{"transfer-encoding", "chunked"}, "400"},
		"upgrade":                  {[]string{"upgrade", "h2c"}, "400"},
		"a length that is none":    {[]string{"content-length", "5, 5"}, "400"},
		"two lengths":              {[]string{"content-length", "0", "content-length", "5"}, "400"},
		"a length that is negated": {[]string{"content-length", "-0"}, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			f := alice.frames(t)
			f.headers(true, append([]string{":method", "GET", ":scheme", "https", ":authority", authority, ":path", "/api/v1/pods", "authorization", token}, test.fields...)...)
			if got := f.result(); got != test.want {
				t.Errorf("answered %s, want %s", got, test.want)
			}
			if test.want == "200" {
				r.upstream.one() // so the others' way would lead there, too
			} else {
				r.upstream.none()
			}
		})
	}
	t.Run("authority and host differ", func(t *testing.T) {
		f := alice.frames(t)
		f.headers(true, ":method", "GET", ":scheme", "https", ":authority", authority, ":path", "/api/v1/pods", "host", "evil.test", "authorization", token)
		got := f.result()
		if got == "200" {
			if seen := r.upstream.one(); strings.Contains(seen.Host, "evil") {
				t.Errorf("upstream got host %s", seen.Host)
			}
		} else if r.upstream.none(); got != "400" && got != "reset" {
			t.Errorf("answered %s", got)
		}
		f = alice.frames(t)
		f.headers(true, ":method", "GET", ":scheme", "https", ":authority", "evil.test", ":path", "/api/v1/pods", "host", authority, "authorization", token)
		if got := f.result(); got != "421" {
			t.Errorf("another authority: %s", got)
		}
		r.upstream.none()
	})
	for name, test := range map[string]struct {
		length string
		whole  bool
		begins bool // so much of it is there that upstream sees how it breaks off
	}{
		"its length":                   {"5", true, false},
		"body longer than its length":  {"3", false, false},
		"body shorter than its length": {"9", false, true},
		"length that is no number":     {"5, 5", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := alice.frames(t)
			f.headers(false, ":method", "POST", ":scheme", "https", ":authority", authority, ":path", "/api/v1/namespaces/dev/pods", "authorization", token, "content-length", test.length)
			must(t, f.framer.WriteData(1, true, []byte("hello")))
			if got := f.result(); (got == "200") != test.whole {
				t.Errorf("answered %s", got)
			}
			var all []seen
			if test.begins {
				r.eventually("upstream has seen it break off", func() bool {
					all = append(all, r.upstream.seen()...)
					return len(all) > 0
				})
			}
			all = append(all, r.upstream.seen()...)
			whole := slices.DeleteFunc(all, func(s seen) bool { return s.Err != nil })
			if (len(whole) == 1) != test.whole || len(whole) == 1 && whole[0].Body != "hello" {
				t.Errorf("upstream got %+v", whole)
			}
		})
	}
}

func TestV119(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{direct: true})
	alice := r.person("alice@example.com")
	for _, host := range []string{"other.zt.test", r.kube.directHost, "127.0.0.1", "", "prod", r.kube.host + ".", "evil.test"} {
		response, body, err := alice.raw("GET /api/v1/pods HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + alice.token() + "\r\nConnection: close\r\n\r\n")
		must(t, err)
		if response.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("Host %q: %d %s", host, response.StatusCode, body)
		}
	}
	for _, host := range []string{r.kube.host, r.kube.host + ":443", strings.ToUpper(r.kube.host)} {
		response, body, err := alice.raw("GET /api/v1/pods HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + alice.token() + "\r\nConnection: close\r\n\r\n")
		must(t, err)
		if response.StatusCode != http.StatusOK {
			t.Errorf("Host %q: %d %s", host, response.StatusCode, body)
		}
	}
	r.upstream.seen()
	// Another TLS name inside a genuine stream: the certificate does not fit it,
	// which a client that does not care would still use.
	conn, err := alice.dialName("other.zt.test")
	must(t, err)
	defer conn.Close()
	if got := rawReply(t, conn, "GET /api/v1/pods HTTP/1.1\r\nHost: other.zt.test\r\nAuthorization: Bearer "+alice.token()+"\r\n\r\n"); got.code != http.StatusMisdirectedRequest {
		t.Errorf("another TLS name: %d %s", got.code, got.body)
	}
	r.upstream.none()
}

func TestV120(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	large := strings.Repeat("x", 4<<20)
	for name, body := range map[string]func() io.Reader{
		"with its length": func() io.Reader { return strings.NewReader(large) },
		"chunked":         func() io.Reader { return io.MultiReader(strings.NewReader(large)) },
	} {
		for _, protocol := range []string{"h2", "http/1.1"} {
			got := r.do(alice.http(protocol), alice.request(http.MethodPost, "/api/v1/namespaces/dev/configmaps", body()))
			if got.code != http.StatusRequestEntityTooLarge || !strings.Contains(got.body, `"kind":"Status"`) {
				t.Errorf("%s, %s: %d %.200s", name, protocol, got.code, got.body)
			}
			for _, request := range r.upstream.seen() {
				if request.Err == nil {
					t.Errorf("%s, %s: upstream got a whole request of %d bytes", name, protocol, request.Length)
				}
			}
		}
	}
	got := r.do(alice.http("h2"), alice.request(http.MethodPost, "/api/v1/namespaces/dev/services/app/proxy/upload", strings.NewReader(large)))
	if seen := r.upstream.whole(); got.code != http.StatusOK || seen.Length != 4<<20 || seen.Err != nil {
		t.Errorf("through a proxy: %d, upstream got %d bytes, %v", got.code, seen.Length, seen.Err)
	}
	// A compressed body stays what it is, whatever it would become.
	var bomb bytes.Buffer
	writer := gzip.NewWriter(&bomb)
	_, _ = writer.Write(make([]byte, 64<<20))
	writer.Close()
	request := alice.request(http.MethodPost, "/api/v1/namespaces/dev/configmaps", bytes.NewReader(bomb.Bytes()))
	request.Header.Set("Content-Encoding", "gzip")
	got = r.do(alice.http("h2"), request)
	if seen := r.upstream.whole(); got.code != http.StatusOK || seen.Length != int64(bomb.Len()) || seen.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("compressed: %d, upstream got %d bytes", got.code, seen.Length)
	}
}

// TestV121: to somebody who may not see it a cluster does not exist, in the very
// words, headers and records that are used where there is none, whatever is asked.
func TestV121(t *testing.T) {
	t.Parallel()
	closed := strings.Replace(everything, "roles: [all]", "roles: [others]", 1) + `
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: others}
spec: {users: [carol@example.com]}
`
	r := newRig(t, rigOptions{manifests: closed})
	alice, carol := r.person("alice@example.com"), r.person("carol@example.com", "others")
	if got := carol.get("/api/v1/pods"); got.code != http.StatusOK {
		t.Fatalf("who may see it got %d %s", got.code, got.body)
	}
	r.upstream.one()
	questions := []struct{ method, path, body string }{
		{"GET", "/api/v1/pods", ""},
		{"GET", "/api/v1/pods?watch=1", ""},
		{"GET", "/api", ""},
		{"GET", "/version", ""},
		{"GET", "/openapi/v3", ""},
		{"GET", "/metrics", ""},
		{"GET", "/api/v1/secrets", ""},                     // a built-in rule refuses it where one may see
		{"GET", "/api/v1/namespaces/zt-system/pods/x", ""}, // and this
		{"POST", bindingsPath, `{"subjects":[]}`},          // whose body is read
		{"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{}`}, // which everybody may
		{"DELETE", "/api/v1/namespaces/dev/pods/x", ""},
		{"POST", "/api/v1/namespaces/dev/pods/x/exec?command=id", ""},
	}
	// Everything that is the same: all but the time and the decision's id.
	type told struct {
		Code   int
		Header http.Header
		Body   string
		Record audit.Record
	}
	ask := func() (all []told) {
		for _, q := range questions {
			got := r.do(alice.http("h2"), alice.request(q.method, q.path, strings.NewReader(q.body)))
			record := r.outcome(got.decision)
			if record.Reason != wire.ReasonClusterUnknown || got.code != http.StatusForbidden || strings.Contains(got.body, "others") {
				t.Errorf("%s %s: %d %s, reason %s", q.method, q.path, got.code, got.body, record.Reason)
			}
			got.header.Del("Date")
			for name, values := range got.header {
				got.header[name] = []string{strings.ReplaceAll(strings.Join(values, "|"), got.decision, "ID")}
			}
			record.ID, record.Time, record.DurationMS, record.Version = "", time.Time{}, 0, ""
			all = append(all, told{got.code, got.header, strings.ReplaceAll(got.body, got.decision, "ID"), record})
		}
		return all
	}
	prod := r.snapshot.Load().Clusters["prod"]
	gone := prod.DeepCopy()
	gone.Name = "elsewhere"
	r.apply(gone, everything)
	unknown := ask()

	disabled := prod.DeepCopy()
	disabled.Spec.Access = v1alpha1.AccessDisabled
	const denied = `---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: denied}
spec:
  effect: Deny
  roles: ["*"]
  clusters: [prod]
  rules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*", "*/*"]}]
`
	for name, world := range map[string]struct {
		cluster   *v1alpha1.TargetCluster
		manifests string
	}{
		"invisible":               {prod, closed},
		"invisible and disabled":  {disabled, closed},
		"invisible and forbidden": {prod, closed + denied},
	} {
		r.apply(world.cluster, world.manifests)
		if diff := cmp.Diff(unknown, ask()); diff != "" {
			t.Errorf("unknown (-) and %s (+) differ:\n%s", name, diff)
		}
	}
	r.upstream.none()
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/api/v1/pods", "/api/v1/namespaces/dev/services/x/proxy/..%2f", "/apis/a/b/c/../d", "/%2e%2e/"} {
		f.Add(seed)
	}
	k := &Kube{}
	k.infos = newRequestInfoFactory()
	f.Fuzz(func(t *testing.T, path string) {
		request, err := http.NewRequest(http.MethodGet, "https://h/", nil)
		if err != nil {
			t.Skip()
		}
		if request.URL, err = request.URL.Parse(path); err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
			t.Skip()
		}
		info, refusal := asked(k.infos, request)
		if refusal != nil {
			return
		}
		// What passed means the same after a cleaning proxy, up to a proxied path.
		if info.Subresource != "proxy" && strings.Contains(strings.TrimSuffix(request.URL.Path, "/"), "//") {
			t.Errorf("%q passed", path)
		}
		if _, after, ok := strings.Cut(path, "/proxy/"); ok && info.Subresource == "proxy" && strings.Contains("/"+unescape(after)+"/", "/../") {
			t.Errorf("%q passed", path)
		}
		for _, part := range []string{info.Namespace, info.Name, info.Resource, info.Subresource, info.APIGroup, info.APIVersion} {
			if part == ".." || part == "." || strings.ContainsAny(part, "/\\\x00%;") {
				t.Errorf("%q passed with %q in it", path, part)
			}
		}
	})
}
