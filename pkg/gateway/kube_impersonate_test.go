package gateway

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// identityOf is what upstream was told about the person.
func identityOf(s seen) map[string][]string {
	identity := map[string][]string{}
	for name, values := range s.Header {
		if strings.HasPrefix(strings.ToLower(name), "impersonate") || name == "Authorization" {
			identity[name] = values
		}
	}
	return identity
}

// intended is the whole identity that the gateway means for p.
func (p *person) intended() map[string][]string {
	return map[string][]string{
		"Authorization":                            {"Bearer the-gateways-own-token"},
		"Impersonate-User":                         {"zt:" + string(p.user.Name)},
		"Impersonate-Group":                        {"zt:all"},
		"Impersonate-Extra-Kube-Zt.io%2fdevice":    {string(p.device.ID)},
		"Impersonate-Extra-Kube-Zt.io%2fsession":   {string(p.session)},
		"Impersonate-Extra-Kube-Zt.io%2fclient-Ip": {"203.0.113.7"},
	}
}

// inbound is a request with one more header line, as HTTP/1.1 bytes.
func (p *person) inbound(lines string) string {
	return "GET /api/v1/pods HTTP/1.1\r\nHost: " + p.rig.kube.host + "\r\nAuthorization: Bearer " + p.token() + "\r\n" + lines + "Connection: close\r\n\r\n"
}

// TestV092, TestV093, TestV094, TestV100: whoever brings an identity along is
// refused, in whatever spelling, over HTTP/1.1 and HTTP/2.
func TestV092(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, name := range []string{"Impersonate-User", "impersonate-user", "IMPERSONATE-USER", "iMpErSoNaTe-UsEr"} {
		response, body, err := alice.raw(alice.inbound(name + ": admin\r\n"))
		must(t, err)
		if response.StatusCode != http.StatusForbidden || !strings.Contains(body, "leave out --as") {
			t.Errorf("HTTP/1.1 %s: %d %s", name, response.StatusCode, body)
		}
	}
	request := alice.request(http.MethodGet, "/api/v1/pods", nil)
	request.Header.Set("Impersonate-User", "admin")
	got := r.do(alice.http("h2"), request)
	if got.code != http.StatusForbidden {
		t.Errorf("HTTP/2: %d %s", got.code, got.body)
	}
	if record := r.outcome(got.decision); record.Reason != wire.ReasonImpersonation {
		t.Errorf("reason %s", record.Reason)
	}
	r.upstream.none()
}

func TestV093(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, name := range []string{"Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-x", "Impersonate-Zzz", "Impersonate-"} {
		request := alice.request(http.MethodGet, "/api/v1/pods", nil)
		request.Header.Set(name, "x")
		if got := r.do(alice.http("h2"), request); got.code != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, got.code, got.body)
		}
	}
	r.upstream.none()
}

func TestV094(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for name, test := range map[string]struct {
		lines string
		want  int
	}{
		"underscore":   {"Impersonate_User: admin\r\n", 400},
		"dot":          {"Impersonate.User: admin\r\n", 400},
		"no separator": {"ImpersonateUser: admin\r\n", 400},
		"split word":   {"Im-personate-User: admin\r\n", 400},
		"space":        {"Impersonate-User : admin\r\n", 400},
		"tab":          {"Impersonate-User\t: admin\r\n", 400},
		"twice":        {"Impersonate-User: admin\r\nImpersonate-User: bob\r\n", 403},
	} {
		t.Run(name, func(t *testing.T) {
			response, body, err := alice.raw(alice.inbound(test.lines))
			must(t, err)
			if response.StatusCode != test.want {
				t.Errorf("%d %s, want %d", response.StatusCode, body, test.want)
			}
			r.upstream.none()
		})
	}
	t.Run("folded line", func(t *testing.T) {
		response, _, err := alice.raw(alice.inbound("User-Agent: x\r\n Impersonate-User: admin\r\n"))
		must(t, err)
		if response.StatusCode == http.StatusBadRequest {
			r.upstream.none()
			return
		}
		if diff := cmp.Diff(alice.intended(), identityOf(r.upstream.one())); diff != "" {
			t.Error(diff)
		}
	})
}

func TestV100(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, name := range []string{"Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-x"} {
		// Alone they are V093's. Here the user is named and is nobody.
		response, body, err := alice.raw(alice.inbound("Impersonate-User: \r\n" + name + ": x\r\n"))
		must(t, err)
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, response.StatusCode, body)
		}
	}
	r.upstream.none()
}

func TestV095(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	response, body, err := alice.raw("GET /api/v1/pods HTTP/1.1\r\nHost: " + r.kube.host + "\r\nAuthorization: Bearer " + alice.token() +
		"\r\nConnection: Impersonate-User, Impersonate-Group, Authorization, Audit-Id\r\n\r\n")
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", response.StatusCode, body)
	}
	got := r.upstream.one()
	if diff := cmp.Diff(alice.intended(), identityOf(got)); diff != "" {
		t.Error(diff)
	}
	if got.Header.Get("Audit-Id") == "" {
		t.Error("no Audit-ID")
	}
}

// TestV096: of what a client sends only the headers of the allow-list go on.
func TestV096(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, protocol := range []string{"h2", "http/1.1"} {
		request := alice.request(http.MethodGet, "/api/v1/pods", nil)
		const mark = "sent-by-the-client"
		for _, name := range []string{
			"Cookie", "Proxy-Authorization", "X-Remote-User", "X-Remote-Group", "X-Remote-Extra-Foo", "X-Remote-Uid",
			"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-Ip", "X-Forwarded-Client-Cert", "X-Original-Url",
			"X-Http-Method-Override", "X-Method-Override", "Audit-Id", wire.HeaderDecision, "Zt-Refusal", "X-Zt-Anything", "Sec-Websocket-Key",
			"X-Stream-Protocol-Version", "Origin", "Referer", "Nobody-Thought-Of-This", "Http2-Settings", "Via", "Max-Forwards", "Expect-Ct",
		} {
			request.Header.Set(name, mark)
		}
		request.Header.Set("Accept", "application/json;as=Table")
		request.Header.Set("User-Agent", "kubectl/v1.36.3")
		request.Header.Set("Kubectl-Command", "get")
		request.Header.Set("If-None-Match", `"x"`)
		if got := r.do(alice.http(protocol), request); got.code != http.StatusOK {
			t.Fatalf("%d %s", got.code, got.body)
		}
		got := r.upstream.one()
		for name, values := range got.Header {
			if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, mark) }) {
				t.Errorf("%s: upstream got %s: %q", protocol, name, values)
			}
		}
		want := slices.Sorted(maps.Keys(alice.intended()))
		want = append(want, "Accept", "Accept-Encoding", "Audit-Id", "If-None-Match", "Kubectl-Command", "User-Agent")
		slices.Sort(want)
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got.Header))); diff != "" {
			t.Errorf("%s: %s", protocol, diff)
		}
	}
}

// TestV104: identities never mix on shared connections.
func TestV104(t *testing.T) {
	t.Parallel()
	users, parallel, each := 200, 50, 10
	if os.Getenv("ZT_SOAK") == "" {
		users, parallel = 20, 25
	}
	r := newRig(t, rigOptions{limits: v1alpha1.Limits{ReadsInFlight: 1 << 20}})
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s", q.Header.Get("Impersonate-User"), q.Header.Get("Impersonate-Extra-Kube-Zt.io%2fdevice"), q.Header.Get("Impersonate-Extra-Kube-Zt.io%2fsession"))
	})
	// As many as a gateway lets through to one cluster; ten thousand new TLS
	// connections in one moment would say nothing about identities.
	inFlight := make(chan struct{}, 400)
	var wg sync.WaitGroup
	for i := range users {
		p := r.person(fmt.Sprintf("user-%d@example.com", i))
		client, token := p.http("h2"), p.token()
		want := fmt.Sprintf("zt:%s|%s|%s", p.user.Name, p.device.ID, p.session)
		for range parallel {
			wg.Go(func() {
				for range each {
					request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.kube.host+"/api/v1/pods", nil)
					if err != nil {
						t.Error(err)
						return
					}
					request.Header.Set("Authorization", "Bearer "+token)
					inFlight <- struct{}{}
					response, err := client.Do(request)
					if err != nil {
						<-inFlight
						t.Error(err)
						return
					}
					body, _ := io.ReadAll(response.Body)
					response.Body.Close()
					<-inFlight
					if string(body) != want {
						t.Errorf("answered %q, want %q", body, want)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestV105: the next request on a connection that stays open obeys what has
// changed, both ways: roles that a revocation takes and policies that change.
func TestV105(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	client := alice.http("h2")
	if got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil)); got.code != http.StatusOK {
		t.Fatalf("%d %s", got.code, got.body)
	}
	r.upstream.one()
	token := alice.token()
	r.epoch.Add(1)
	r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Role: "all", Reason: "the role was a mistake"}}}, wire.Epoch{Generation: 1, Sequence: r.epoch.Load()})
	request := alice.request(http.MethodGet, "/api/v1/pods", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	if got := r.do(client, request); got.code != http.StatusForbidden {
		t.Errorf("with a role that was taken: %d %s", got.code, got.body)
	}
	r.upstream.none()

	bob := r.person("bob@example.com")
	client = bob.http("h2")
	pod := func() reply {
		return r.do(client, bob.request(http.MethodGet, "/api/v1/namespaces/dev/pods/x", nil))
	}
	// The role was revoked for all, until that is lifted.
	r.epoch.Add(1)
	r.registry.Apply(nil, wire.Epoch{Generation: 1, Sequence: r.epoch.Load()})
	if got := pod(); got.code != http.StatusOK {
		t.Fatalf("before the policy changed: %d %s", got.code, got.body)
	}
	r.upstream.one()
	r.manifests(strings.Replace(everything, `verbs: ["*"], apiGroups`, `verbs: [list], apiGroups`, 1))
	if got := pod(); got.code != http.StatusForbidden {
		t.Errorf("after the policy changed: %d %s", got.code, got.body)
	}
	r.upstream.none()
}

// TestV106: the gateway's own token may expire; the person never sees it.
func TestV106(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	client := alice.http("h2")
	unauthorized := func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "Bearer renewed" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}`)
			return
		}
		_, _ = io.WriteString(w, "fine")
	}
	r.upstream.handle(unauthorized)

	for method, want := range map[string]int{http.MethodGet: 503, http.MethodPost: 503} {
		got := r.do(client, alice.request(method, "/api/v1/pods", strings.NewReader("{}")))
		if got.code != want || got.header.Get("Retry-After") != "" || !strings.Contains(got.body, "the gateway's own credential") {
			t.Errorf("%s with an expired token: %d %s", method, got.code, got.body)
		}
		if n := len(r.upstream.seen()); n != 1 {
			t.Errorf("%s: upstream saw %d requests, want 1", method, n)
		}
	}
	// On discovery paths client-go keeps the text of a 502 and not of a 503.
	if got := r.do(client, alice.request(http.MethodGet, "/apis", nil)); got.code != http.StatusBadGateway || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
		t.Errorf("discovery: %d %v %s", got.code, got.header, got.body)
	}
	r.upstream.seen()

	must(t, os.WriteFile(r.tokenFile, []byte("renewed"), 0o600))
	got := r.do(client, alice.request(http.MethodPost, "/api/v1/pods", strings.NewReader("{}")))
	if got.code != http.StatusServiceUnavailable || len(r.upstream.seen()) != 1 {
		t.Errorf("a write when the token was renewed: %d %s", got.code, got.body)
	}
	must(t, os.WriteFile(r.tokenFile, []byte("expired-again"), 0o600))
	r.ahead.Add(int64(time.Minute)) // the file is looked at
	if got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil)); got.code != http.StatusServiceUnavailable {
		t.Errorf("a read with an expired token: %d %s", got.code, got.body)
	}
	r.upstream.seen()
	must(t, os.WriteFile(r.tokenFile, []byte("renewed"), 0o600))
	if got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil)); got.code != http.StatusOK || got.body != "fine" {
		t.Errorf("a read when the token was renewed: %d %s", got.code, got.body)
	}
	if n := len(r.upstream.seen()); n != 2 {
		t.Errorf("upstream saw %d requests, want the read and its repetition", n)
	}

	// An application behind a proxy may well ask for a password.
	r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "who are you?")
	})
	got = r.do(client, alice.request(http.MethodGet, "/api/v1/namespaces/dev/services/app/proxy/", nil))
	if got.code != http.StatusUnauthorized || got.body != "who are you?" || got.header.Get("Www-Authenticate") != "Basic" {
		t.Errorf("an application's 401: %d %v %s", got.code, got.header, got.body)
	}
}

func TestV108(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	client := alice.http("h2")
	const proxied, normal, aggregated = "/api/v1/namespaces/dev/services/app/proxy/x", "/api/v1/pods", "/apis/metrics.k8s.io/v1beta1/nodes"
	for _, test := range []struct {
		path, location string
		pass           bool
	}{
		{normal, "https://evil.test/", false},
		{normal, "/api/v1/nodes", false},
		{aggregated, "https://evil.test/", false},
		{proxied, "/api/v1/namespaces/dev/services/app/proxy/y", true},
		{proxied, "y?z=https://not.the/host", true},
		{proxied, "https://evil.test/", false},
		{proxied, "//evil.test/", false},
		{proxied, `/\evil.test/`, false},
		{proxied, "javascript:alert(1)", false},
		{proxied, "", false},
	} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", test.location)
				w.WriteHeader(code)
			})
			got := r.do(client, alice.request(http.MethodGet, test.path, nil))
			switch {
			case test.pass && (got.code != code || got.header.Get("Location") != test.location):
				t.Errorf("%d from %s to %q: answered %d %v", code, test.path, test.location, got.code, got.header)
			case !test.pass && (got.code != http.StatusBadGateway || got.header.Get("Location") != ""):
				t.Errorf("%d from %s to %q: answered %d %v", code, test.path, test.location, got.code, got.header)
			}
			r.upstream.one()
		}
	}
	r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	if got := r.do(client, alice.request(http.MethodGet, "/openapi/v3", nil)); got.code != http.StatusNotModified {
		t.Errorf("304: %d", got.code)
	}
}

func TestV109(t *testing.T) {
	t.Parallel()
	// Only HTTP/1.1 has headers of the connection.
	r := newRig(t, rigOptions{http1: true})
	alice := r.person("alice@example.com")
	r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Warning", `299 - "old"`)
		w.Header().Set("X-Kubernetes-Pf-Flowschema-Uid", "x")
		_, _ = io.WriteString(w, "fine")
	})
	for _, protocol := range []string{"h2", "http/1.1"} {
		for _, path := range []string{"/api/v1/pods", "/api/v1/namespaces/dev/services/app/proxy/x"} {
			got := r.do(alice.http(protocol), alice.request(http.MethodGet, path, nil))
			if got.code != http.StatusOK || got.body != "fine" {
				t.Fatalf("%d %s", got.code, got.body)
			}
			for _, name := range []string{"Set-Cookie", "Alt-Svc", "X-Hop"} {
				if got.header.Get(name) != "" {
					t.Errorf("%s %s: the client got %s", protocol, path, name)
				}
			}
			if got.header.Get("Warning") == "" || got.header.Get("X-Kubernetes-Pf-Flowschema-Uid") == "" {
				t.Errorf("%s %s: lost what belongs to the client: %v", protocol, path, got.header)
			}
		}
	}
	// An interim response does not reach the client at all.
	response, _, err := alice.raw(alice.inbound(""))
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Errorf("the first answer was %d", response.StatusCode)
	}
}

// TestRBACStale: a 403 about the gateway's own account is not shown as the
// person's.
func TestRBACStale(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	client := alice.http("h2")
	forbidden := func(message string) {
		r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":"Forbidden","details":{"kind":"pods"},"code":403}`, message)
		})
	}
	forbidden(`pods is forbidden: User "system:serviceaccount:zt-system:zt-impersonate" cannot impersonate-on:user-info:list resource "pods" in API group ""`)
	got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil))
	if got.code != http.StatusForbidden || !strings.Contains(got.body, "zt-gateway rbac") || strings.Contains(got.body, "zt-system") {
		t.Errorf("%d %s", got.code, got.body)
	}
	if record := r.outcome(got.decision); record.Reason != wire.ReasonRBACStale || !strings.Contains(record.Error, "impersonate-on") {
		t.Errorf("%+v", record)
	}
	if !slices.ContainsFunc(r.kube.Conditions(), func(c Condition) bool { return c.Type == ConditionRBACStale }) {
		t.Errorf("conditions: %v", r.kube.Conditions())
	}
	const own = `pods is forbidden: User "zt:alice@example.com" cannot list resource "pods" in API group "" at the cluster scope`
	forbidden(own)
	if got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil)); !strings.Contains(got.body, "zt:alice@example.com") {
		t.Errorf("%d %s", got.code, got.body)
	}
}
