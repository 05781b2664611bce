package gateway

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/wire"
)

// changedAuthn changes what the true authenticator found, as a fault would.
type changedAuthn struct {
	authn.Authenticator
	change func(*authn.Identity)
}

func (c changedAuthn) Authenticate(ctx context.Context, token string) (*authn.Identity, *wire.Refusal) {
	identity, refusal := c.Authenticator.Authenticate(ctx, token)
	if refusal != nil {
		return nil, refusal
	}
	changed := *identity
	c.change(&changed)
	return &changed, nil
}

// TestV102: when the identity cannot be built nothing is sent.
func TestV102(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*authn.Identity){
		"a system name": func(i *authn.Identity) { i.Name = "system:admin" },
		"no name":       func(i *authn.Identity) { i.Name = "" },
		"zt's extra":    func(i *authn.Identity) { i.Extra = map[string][]string{wire.ExtraDevice: {"other"}} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{})
			alice := r.person("alice@example.com")
			r.kube.authn = changedAuthn{r.kube.authn, change}
			if got := alice.get("/api/v1/pods"); got.code != http.StatusInternalServerError {
				t.Errorf("%d %s", got.code, got.body)
			}
			if got := alice.open(alice.upgrade("GET", execPath, "websocket")); got.answer.StatusCode != http.StatusInternalServerError {
				t.Errorf("upgrade: %d", got.answer.StatusCode)
			}
			r.upstream.none()
		})
	}
}

// TestAuditFails: what cannot be written down does not happen; what changes
// nothing goes on.
func TestAuditFails(t *testing.T) {
	t.Parallel()
	var lost atomic.Int32
	r := newRig(t, rigOptions{audit: func(string) *audit.Log {
		log, err := audit.Open("/dev/full", audit.Options{Failed: func(error) { lost.Add(1) }})
		must(t, err)
		return log
	}})
	alice := r.person("alice@example.com")
	for _, request := range []*http.Request{
		alice.request(http.MethodPost, "/api/v1/namespaces/dev/pods", strings.NewReader("{}")),
		alice.request(http.MethodDelete, "/api/v1/namespaces/dev/pods/x", nil),
		alice.request(http.MethodPatch, "/api/v1/namespaces/dev/pods/x", strings.NewReader("{}")),
		alice.request(http.MethodGet, "/api/v1/namespaces/dev/services/x/proxy/delete-everything", nil),
	} {
		got := r.do(alice.http("h2"), request)
		if got.code != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "" || !strings.Contains(got.body, "audit log") {
			t.Errorf("%s %s: %d %s", request.Method, request.URL.Path, got.code, got.body)
		}
	}
	if got := alice.open(alice.upgrade("GET", execPath, "websocket")); got.answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("exec: %d", got.answer.StatusCode)
	}
	r.upstream.none()
	if got := alice.get("/api/v1/pods"); got.code != http.StatusOK {
		t.Errorf("a read: %d %s", got.code, got.body)
	}
	if lost.Load() == 0 {
		t.Error("nobody was told of lost records")
	}
}

// TestPanic: a handler that panics ends its request and nothing else.
func TestPanic(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	var fault atomic.Bool
	fault.Store(true)
	r.kube.authn = changedAuthn{r.kube.authn, func(*authn.Identity) {
		if fault.Load() {
			panic("a bug")
		}
	}}
	client := alice.http("h2")
	got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil))
	if got.code != http.StatusInternalServerError || strings.Contains(got.body, "a bug") || got.decision == "" {
		t.Errorf("%d %s", got.code, got.body)
	}
	if record := r.outcome(got.decision); record.Reason != wire.ReasonInternal {
		t.Errorf("%+v", record)
	}
	fault.Store(false)
	if got := r.do(client, alice.request(http.MethodGet, "/api/v1/pods", nil)); got.code != http.StatusOK {
		t.Errorf("the next request on the same connection: %d %s", got.code, got.body)
	}
}

// renewal opens a stream that shows a newer certificate and nothing else.
func (p *person) renewal() {
	p.rig.t.Helper()
	jws, err := evidence.SignProof(p.proof, evidence.ProofRequest{Audience: string(p.rig.cluster.UID), Renew: true, Now: p.rig.now(), Chain: p.chain})
	must(p.rig.t, err)
	conn, err := net.Dial("tcp", p.rig.listener.Addr().String())
	must(p.rig.t, err)
	defer conn.Close()
	must(p.rig.t, evidence.WritePreface(conn, jws))
	must(p.rig.t, conn.(*net.TCPConn).CloseWrite())
	_, _ = io.Copy(io.Discard, conn) // closed when it has been read
}

// TestRenewal: a stream ends soon after its certificate, and lives on when a
// newer one for the same session and device was shown, on whatever stream.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		renew func(*rig, *person)
		lives bool
	}{
		"not renewed": {func(*rig, *person) {}, false},
		"renewed":     {func(_ *rig, p *person) { p.renew(2 * time.Hour); p.renewal() }, true},
		"by a new stream": {func(r *rig, p *person) {
			p.renew(2 * time.Hour)
			if got := p.get("/api/v1/pods"); got.code != http.StatusOK {
				t.Errorf("%d %s", got.code, got.body)
			}
		}, true},
		"another session": {func(r *rig, p *person) {
			other := r.person(string(p.user.Name))
			other.renew(2 * time.Hour)
			other.renewal()
		}, false},
		"another device": {func(_ *rig, p *person) {
			other := *p
			other.key = newKey(t)
			other.renew(2 * time.Hour)
			other.renewal()
		}, false},
		"an older certificate": {func(_ *rig, p *person) { p.renew(time.Minute); p.renewal() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{})
			alice := r.person("alice@example.com")
			r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Query().Get("watch") == "" {
					return
				}
				watchUpstream(oneEvent)(w, q)
			})
			end := alice.identity().NotAfter
			response, err := alice.http("h2").Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
			must(t, err)
			defer response.Body.Close()
			lines := bufio.NewReader(response.Body)
			if line, err := lines.ReadString('\n'); err != nil || line != oneEvent {
				t.Fatalf("%q, %v", line, err)
			}
			test.renew(r, alice)
			// The clock is set: what goes by timers of before would not notice.
			r.ahead.Store(int64(time.Until(end) - 500*time.Millisecond))
			ended := make(chan string, 1)
			go func() {
				line, err := lines.ReadString('\n')
				ended <- fmt.Sprint(line, err)
			}()
			timer := time.NewTimer(5500 * time.Millisecond)
			defer timer.Stop()
			select {
			case got := <-ended:
				if test.lives || !strings.Contains(got, "certificate has ended") {
					t.Errorf("ended with %q", got)
				}
			case <-timer.C:
				if !test.lives {
					t.Error("it lives 5 s after its certificate")
				}
			}
		})
	}
}

// TestDrain: what is short ends well, what is long is told why.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	inside, proceed := make(chan struct{}), make(chan struct{})
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Get("watch") != "" {
			watchUpstream(oneEvent)(w, q)
			return
		}
		close(inside)
		<-proceed
		_, _ = io.WriteString(w, "done")
	})
	watch, err := alice.http("h2").Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
	must(t, err)
	defer watch.Body.Close()
	var short sync.WaitGroup
	request := alice.request(http.MethodGet, "/api/v1/pods", nil)
	short.Go(func() {
		response, err := alice.http("h2").Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "done" {
			t.Errorf("%q, %v", body, err)
		}
	})
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- r.kube.Drain(ctx) }()
	close(proceed)
	short.Wait()
	rest, err := io.ReadAll(watch.Body)
	if err != nil || !strings.HasPrefix(string(rest), oneEvent) || !strings.Contains(string(rest), "shutting down") {
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if conn, err := alice.dialErr(r.kube.host, "http/1.1"); err == nil {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a new connection after the drain: %v", err)
		}
		conn.Close()
	}
}

// TestFairShare: one person gets half of what there is, and somebody else a
// part of the rest.
func TestFairShare(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{limits: v1alpha1.Limits{ReadsInFlight: 8, WritesInFlight: 4}})
	alice, bob := r.person("alice@example.com"), r.person("bob@example.com")
	release := make(chan struct{})
	r.upstream.handle(func(_ http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Get("watch") == "" {
			<-release
		}
	})
	var wg sync.WaitGroup
	start := func(p *person, method string, n int) {
		client := p.http("h2")
		for range n {
			request := p.request(method, "/api/v1/namespaces/dev/pods", nil)
			wg.Go(func() {
				if response, err := client.Do(request); err == nil {
					response.Body.Close()
				}
			})
		}
	}
	start(alice, http.MethodGet, 4)
	r.eventually("alice's four", func() bool { return r.upstream.count() == 4 })
	got := alice.get("/api/v1/pods")
	if got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") != "1" {
		t.Errorf("alice's fifth: %d %v %s", got.code, got.header, got.body)
	}
	start(bob, http.MethodGet, 2)
	start(alice, http.MethodPost, 2)
	r.eventually("bob's two and alice's writes", func() bool { return r.upstream.count() == 8 })
	if got := bob.get("/api/v1/pods"); got.code != http.StatusTooManyRequests {
		t.Errorf("bob's third: %d", got.code)
	}
	// What takes for ever does not take a reader's place.
	if got := alice.get("/api/v1/pods?watch=1"); got.code != http.StatusTooManyRequests {
		t.Errorf("a watch of somebody over his share: %d", got.code)
	}
	close(release)
	wg.Wait()
	r.upstream.seen()
	for range 20 {
		if got := alice.get("/api/v1/pods?watch=1"); got.code != http.StatusOK {
			t.Errorf("a watch: %d", got.code)
		}
	}
	if got := alice.get("/api/v1/pods"); got.code != http.StatusOK {
		t.Errorf("afterwards: %d", got.code)
	}
}

// TestFairDevices: what has all of a person's share on one device leaves something
// for the person on another.
func TestFairDevices(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{limits: v1alpha1.Limits{ReadsInFlight: 8}})
	desk, laptop := r.person("alice@example.com"), r.person("alice@example.com")
	release := make(chan struct{})
	r.upstream.handle(func(_ http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Get("wait") != "" {
			<-release
		}
	})
	var wg sync.WaitGroup
	client := desk.http("h2")
	for range 4 {
		request := desk.request(http.MethodGet, "/api/v1/pods?wait=1", nil)
		wg.Go(func() {
			if response, err := client.Do(request); err == nil {
				response.Body.Close()
			}
		})
	}
	r.eventually("four from the desk", func() bool { return r.upstream.count() == 4 })
	if got := desk.get("/api/v1/pods"); got.code != http.StatusTooManyRequests {
		t.Errorf("a fifth from the desk: %d", got.code)
	}
	if got := laptop.get("/api/v1/pods"); got.code != http.StatusOK {
		t.Errorf("from the laptop: %d %s", got.code, got.body)
	}
	close(release)
	wg.Wait()
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests)
}

// TestCompression: where the client does not ask for gzip, the leg upstream does.
func TestCompression(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.Contains(q.Header.Get("Accept-Encoding"), "gzip") {
			_, _ = io.WriteString(w, "plain")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "packed")
		z.Close()
	})
	for _, test := range []struct{ path, accept, body, encoding string }{
		{"/api/v1/pods", "", "packed", ""},
		{"/api/v1/pods", "identity", "packed", ""},
		{"/api/v1/namespaces/dev/services/x/proxy/", "", "plain", ""},
	} {
		request := alice.request(http.MethodGet, test.path, nil)
		if test.accept != "" {
			request.Header.Set("Accept-Encoding", test.accept)
		}
		got := r.do(alice.http("h2"), request)
		if got.body != test.body || got.header.Get("Content-Encoding") != test.encoding {
			t.Errorf("%s with %q: %q %v", test.path, test.accept, got.body, got.header)
		}
	}
	request := alice.request(http.MethodGet, "/api/v1/pods", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	if got := r.do(alice.http("h2"), request); got.header.Get("Content-Encoding") != "gzip" || strings.Contains(got.body, "packed") {
		t.Errorf("a client that asks: %q %v", got.body, got.header)
	}
}

// TestNothingLeft: connections and requests that are over are in no register.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Upgrade") != "" {
			switched(switching("websocket"), echo)(w, q)
		}
	})
	for i := range 10 {
		p := r.person(fmt.Sprintf("user-%d@example.com", i))
		client := p.http("h2")
		r.do(client, p.request(http.MethodGet, "/api/v1/pods", nil))
		r.do(client, p.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
		client.CloseIdleConnections()
		p.open(p.upgrade("GET", execPath, "websocket")).Close()
		p.open(p.upgrade("GET", "/api/v1/pods", "websocket")).Close()
	}
	r.eventually("the registers are empty", func() bool {
		r.kube.links.mu.Lock()
		defer r.kube.links.mu.Unlock()
		return len(r.kube.links.byConn) == 0 && len(r.kube.links.byPeer) == 0 && len(r.registry.Live()) == 0
	})
}

// TestPermissiveIsRecorded: what a policy would deny and does not yet, passes and is
// one record that says so, with the policy and the rule (F21); enforced, it is a 403 of
// that very policy and rule.
func TestPermissiveIsRecorded(t *testing.T) {
	t.Parallel()
	const deny = everything + `
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: soon}
spec:
  effect: Deny
  roles: [all]
  clusters: [prod]
  rules:
  - {verbs: [delete], apiGroups: [""], resources: [services]}
  - {verbs: [get], apiGroups: [""], resources: [configmaps]}
`
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	soft := deny + "  enforcement: {mode: Permissive, until: " + until + "}\n"
	r := newRig(t, rigOptions{manifests: soft})
	alice := r.person("alice@example.com")
	const denied, allowed = "/api/v1/namespaces/dev/configmaps/x", "/api/v1/namespaces/dev/pods/x"
	// last waits for the record of what was asked: one, and nothing before it again.
	n := 0
	last := func() audit.Record {
		t.Helper()
		n++
		var all []audit.Record
		r.eventually("a record", func() bool { all = r.records(); return len(all) >= n })
		if len(all) != n {
			t.Fatalf("%d records, want %d", len(all), n)
		}
		return all[n-1]
	}
	for _, test := range []struct {
		manifests string
		path      string
		code      int
		wouldDeny bool
	}{
		{soft, denied, http.StatusOK, true},
		{soft, allowed, http.StatusOK, false},
		{deny, denied, http.StatusForbidden, false},
	} {
		r.manifests(test.manifests)
		got := alice.get(test.path)
		if got.code != test.code {
			t.Errorf("%s: %d %s", test.path, got.code, got.body)
		}
		record := last()
		if record.WouldDeny != test.wouldDeny || record.Code != test.code || record.User == nil || record.User.Name != "alice@example.com" || record.Device != alice.device.ID {
			t.Errorf("%s: %+v", test.path, record)
		}
		if test.path == denied && (record.Policy != "soon" || record.Rule != 2 || record.Reason != wire.ReasonPolicyDenied || record.Message == "") {
			t.Errorf("answered %d, it names policy %q, rule %d, %s: %s", test.code, record.Policy, record.Rule, record.Reason, record.Message)
		}
		if test.code == http.StatusOK {
			r.upstream.one()
		} else {
			r.upstream.none()
		}
	}
}

// TestPolicyActsOnStreams: what lives on is judged again when policies change,
// and with the passing of time.
func TestPolicyActsOnStreams(t *testing.T) {
	t.Parallel()
	permissive := fmt.Sprintf(`
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: all}
spec: {users: ["*"], device: {tiers: [none, software]}}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: soft}
spec:
  roles: [all]
  clusters: ["*"]
  rules: [{verbs: [get], apiGroups: [""], resources: [configmaps]}]
  enforcement: {mode: Permissive, until: %q}
`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	for name, test := range map[string]struct {
		manifests string
		change    func(*rig)
		want      string // "" where it lives on
	}{
		"taken away":  {everything, func(r *rig) { r.manifests(readers) }, "zt:"},
		"still there": {everything, func(r *rig) { r.manifests(strings.Replace(everything, "name: everything", "name: renamed", 1)) }, ""},
		"disabled": {everything, func(r *rig) {
			cluster := *r.snapshot.Load().Clusters["prod"]
			cluster.Spec.Access = v1alpha1.AccessDisabled
			r.apply(&cluster, everything)
		}, "disabled"},
		"permissive ends": {permissive, func(r *rig) { r.ahead.Store(int64(61 * time.Minute)) }, "zt:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{manifests: test.manifests})
			alice := r.person("alice@example.com")
			alice.renew(4 * time.Hour)
			r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
				if q.Header.Get("Upgrade") != "" {
					switched(switching("websocket"), echo)(w, q)
					return
				}
				watchUpstream(oneEvent)(w, q)
			})
			watch, err := alice.http("h2").Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
			must(t, err)
			defer watch.Body.Close()
			exec := alice.open(alice.upgrade("GET", execPath, "websocket"))
			if exec.answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%d %s", exec.answer.StatusCode, exec.body())
			}
			began := time.Now()
			test.change(r)
			if test.want == "" {
				r.eventually("both were judged by the new policies", func() bool {
					r.kube.judgements.mu.Lock()
					defer r.kube.judgements.mu.Unlock()
					by := 0
					for j := range r.kube.judgements.live {
						if j.by == r.snapshot.Load().Policy {
							by++
						}
					}
					return by == 2
				})
				if _, err := exec.Write([]byte{0x82, 1, 'x'}); err != nil {
					t.Fatal(err)
				}
				if b, err := exec.reader.Peek(3); err != nil || b[2] != 'x' {
					t.Errorf("%q, %v", b, err)
				}
				return
			}
			rest, err := io.ReadAll(watch.Body)
			if err != nil || !strings.Contains(string(rest), `"type":"ERROR"`) || !strings.Contains(string(rest), test.want) {
				t.Errorf("watch: %v %q", err, rest)
			}
			last, _ := io.ReadAll(exec.reader)
			if len(last) < 4 || last[0] != 0x88 {
				t.Errorf("exec: %q", last)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("cut after %s", took)
			}
		})
	}
}
