package control

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")

	id, err := trust.VerifyTrustChain(l.chain(), r.authority.Roots(trust.Trust), domain, r.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	proof, _ := trust.Thumbprint(l.proof.Public())
	alice := wire.User{Issuer: wire.Issuer(r.idp.Issuer()), Subject: "00u-alice-7f3a", Name: "alice@example.com"}
	if id.User != alice || id.Key != l.jkt || id.Proof != proof || id.Session != l.cert.Session || l.cert.Device != l.id {
		t.Errorf("identity %+v for certificate %+v", id, l.cert)
	}
	if got := id.NotAfter.Sub(r.clock.Now()); got > time.Hour || got < 59*time.Minute {
		t.Errorf("the certificate lasts %v, want an hour", got)
	}
	if got := l.cert.SessionEnd.Sub(r.clock.Now()); got > 12*time.Hour || got < 11*time.Hour {
		t.Errorf("the session lasts %v, want 12 hours", got)
	}
	record, ok := r.store.Session(id.Session)
	if !ok || record.User != alice || record.Serial != id.Serial || !cmp.Equal(record.Roles, []wire.Role{"devs"}) || record.Tier != "software" {
		t.Errorf("record %+v", record)
	}
	device, ok := r.store.Snapshot().Device(l.id)
	if !ok || device.Status.OwnerSubject != "00u-alice-7f3a" || device.Status.Phase != v1alpha1.DevicePending || device.Status.Platform != "linux" {
		t.Errorf("device %+v", device)
	}
	// F17: device, person, certificate, in that order.
	var events []audit.Event
	for _, record := range r.audited() {
		events = append(events, record.Event)
	}
	if diff := cmp.Diff([]audit.Event{audit.EventDeviceCheck, audit.EventAuthn, audit.EventSession}, events); diff != "" {
		t.Error(diff)
	}
}

// Whatever is wrong with a device, a stranger hears one thing.
func TestDeviceCheckIsMute(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { c.Login.Enrolment = v1alpha1.EnrolmentApproval }})
	pending, revoked, denied, good := r.laptop(), r.laptop(), r.laptop(), r.laptop()
	r.load("devices.yaml", deviceManifest(good.id, "{approved: true}")+"---\n"+deviceManifest(revoked.id, "{approved: true, revoked: true}")+
		"---\n"+deviceManifest(denied.id, "{approved: true}")+"---\n"+deviceManifest(pending.id, "{owner: bob@example.com}"))
	r.revoke(v1alpha1.RevocationSpec{Device: string(denied.id)})

	if _, refusal := good.submit(good.statement(wire.PurposeLogin)); refusal != nil {
		t.Fatalf("the approved device: %v", refusal)
	}
	unknown := r.laptop()
	answers := map[string]*wire.Refusal{}
	for name, l := range map[string]*laptop{"unknown": unknown, "pending": pending, "revoked by manifest": revoked, "on the deny list": denied} {
		_, answers[name] = l.submit(l.statement(wire.PurposeLogin))
	}
	stale := good.statement(wire.PurposeLogin)
	stale.Nonce = "AAAA" + stale.Nonce[4:]
	_, answers["a nonce that is not ours"] = good.submit(stale)
	elsewhere := good.statement(wire.PurposeLogin)
	elsewhere.Audience = "other.test"
	_, answers["another trust domain"] = good.submit(elsewhere)
	answers["no statement"] = r.post(wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: "a.b.c"}, nil)
	want := wire.Refusal{Reason: wire.ReasonDeviceRefused, Message: "this device is not accepted"}
	seen := map[wire.DecisionID]bool{}
	for name, got := range answers {
		mustRefuse(t, name, got, wire.ReasonDeviceRefused)
		if seen[got.Decision] {
			t.Errorf("%s: a decision id that was given before", name)
		}
		seen[got.Decision] = true
		bare := *got
		bare.Decision = ""
		if bare != want {
			t.Errorf("%s: %+v, want %+v", name, bare, want)
		}
	}
	// Only the audit log tells them apart.
	causes := map[string]bool{}
	for _, record := range r.audited() {
		if record.Reason == wire.ReasonDeviceRefused {
			causes[record.Error] = true
		}
	}
	if len(causes) < 5 {
		t.Errorf("the audit log knows %d causes: %v", len(causes), causes)
	}
	// To enrol, an unknown device passes, a revoked one does not.
	if _, refusal := unknown.submit(unknown.statement(wire.PurposeEnroll)); refusal != nil {
		t.Errorf("an unknown device may not enrol: %v", refusal)
	}
	_, refusal := revoked.submit(revoked.statement(wire.PurposeEnroll))
	mustRefuse(t, "a revoked device enrols", refusal, wire.ReasonDeviceRefused)
}

func TestDeviceCheckFactsAboutTheMessage(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop()
	skewed := l.statement(wire.PurposeLogin)
	skewed.IssuedAt += 16 * 60
	_, refusal := l.submit(skewed)
	if got := mustRefuse(t, "a clock 16 minutes ahead", refusal, wire.ReasonClockSkew); !strings.Contains(got.Message, "clock skew") {
		t.Errorf("%q does not say clock skew", got.Message)
	}
	odd := l.statement("issue")
	_, refusal = l.submit(odd)
	if got := mustRefuse(t, "an unknown kind", refusal, wire.ReasonMalformed); got.Status() != http.StatusBadRequest {
		t.Errorf("status %d, want 400", got.Status())
	}
}

func TestBodiesThatAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	tests := []struct {
		name, method, path, kind, body string
		want                           int
	}{
		{"not JSON", "POST", wire.PathSession, "application/json", "hello", 400},
		{"two values", "POST", wire.PathSession, "application/json", "{}{}", 400},
		{"empty", "POST", wire.PathSession, "application/json", "", 400},
		{"a form", "POST", wire.PathSession, "application/x-www-form-urlencoded", "a=b", 415},
		{"no type", "POST", wire.PathSession, "", "{}", 415},
		{"too large", "POST", wire.PathSession, "application/json", `{"txn":"` + strings.Repeat("x", maxLogin) + `"}`, 413},
		{"another method", "GET", wire.PathSession, "", "", 405},
		{"another path", "GET", "/metrics", "", "", 404},
		{"a token on gw.", "POST", wire.PathToken, "application/json", `{"cluster":"prod"}`, 404},
		{"a renewal on gw.", "POST", wire.PathCertificate, "application/json", `{}`, 404},
	}
	for _, tt := range tests {
		request, err := http.NewRequestWithContext(t.Context(), tt.method, r.url+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.kind != "" {
			request.Header.Set("Content-Type", tt.kind)
		}
		response, err := r.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, response.StatusCode, tt.want)
		}
	}
}

func TestSessionsThatAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	now := time.Now()
	tests := []struct {
		name string
		in   func(l *laptop, txn string) wire.SessionRequest
		want wire.Reason
	}{
		{"the nonce of another transaction", func(l *laptop, txn string) wire.SessionRequest {
			other := r.laptop()
			other.check(wire.PurposeLogin)
			return wire.SessionRequest{TXN: txn, IDToken: other.token("alice", nil)}
		}, wire.ReasonTokenInvalid},
		{"no nonce", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"nonce": nil})}
		}, wire.ReasonTokenInvalid},
		{"no nonce, called a device code where that is off", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"nonce": nil}), DeviceCode: true}
		}, wire.ReasonLoginRequired},
		{"another client's token", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"aud": "other", "azp": "other"})}
		}, wire.ReasonTokenInvalid},
		{"asked for by another client", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"azp": "other"})}
		}, wire.ReasonTokenInvalid},
		{"for two clients, asked for by nobody", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"aud": []string{r.idp.ClientID(), "other"}, "azp": nil})}
		}, wire.ReasonTokenInvalid},
		{"another issuer", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"iss": "https://evil.test"})}
		}, wire.ReasonTokenInvalid},
		{"expired", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"exp": now.Add(-time.Minute).Unix()})}
		}, wire.ReasonTokenExpired},
		{"no end", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"exp": nil})}
		}, wire.ReasonTokenInvalid},
		{"of tomorrow", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"iat": now.Add(24 * time.Hour).Unix()})}
		}, wire.ReasonTokenInvalid},
		{"not signed", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: r.idp.MintIDToken("alice", idp.Mint{Claims: map[string]any{"nonce": l.nonce}, Algorithm: "none"})}
		}, wire.ReasonTokenInvalid},
		{"signed by somebody else", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: r.idp.MintIDToken("alice", idp.Mint{Claims: map[string]any{"nonce": l.nonce}, Algorithm: "ES256", Key: newKey(t)})}
		}, wire.ReasonTokenInvalid},
		{"an address that is not verified", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"email_verified": "true"})}
		}, wire.ReasonTokenInvalid},
		{"a reserved name", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"email": "system:admin@x"})}
		}, wire.ReasonReservedIdentity},
		{"another key in the request", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil), CSR: csr(t, newKey(t))}
		}, wire.ReasonBindingMismatch},
		{"no request", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil), CSR: "x"}
		}, wire.ReasonMalformed},
		{"a transaction that is not ours", func(l *laptop, txn string) wire.SessionRequest {
			return wire.SessionRequest{TXN: txn[:len(txn)-2] + "xx", IDToken: l.token("alice", nil)}
		}, wire.ReasonLoginRequired},
		{"a transaction for enrolment", func(l *laptop, _ string) wire.SessionRequest {
			txn := l.check(wire.PurposeEnroll)
			return wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}
		}, wire.ReasonLoginRequired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := r.laptop()
			txn := l.check(wire.PurposeLogin)
			mustRefuse(t, "session", l.session(tt.in(l, txn)), tt.want)
			if _, ok := r.store.Snapshot().Device(l.id); ok {
				t.Error("the device was recorded")
			}
		})
	}
	if n := len(r.store.Sessions()); n != 0 {
		t.Errorf("%d sessions were recorded", n)
	}
}

// What is expected of the issuer's tokens is the configuration's to say: the
// algorithms (F79) and whose authority stands behind it (F81). The log says what was
// expected and what came (F76), the person does not hear it.
func TestIssuerIsWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	provider, err := idp.Start(t.Context(), idp.Options{Algorithm: jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close()
	stranger, err := idp.Start(t.Context(), idp.Options{Algorithm: jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	algorithms := func(names ...string) func(*v1alpha1.GatewayConfiguration) {
		return func(c *v1alpha1.GatewayConfiguration) { c.OIDC.SigningAlgorithms = names }
	}
	for name, tt := range map[string]struct {
		o      rigOptions
		claims map[string]any
		want   wire.Reason // "" where it is accepted
		log    []string
	}{
		"the issuer's algorithm":          {o: rigOptions{config: algorithms("ES256")}},
		"by default":                      {},
		"another algorithm":               {o: rigOptions{config: algorithms("RS256")}, want: wire.ReasonTokenInvalid, log: []string{`"ES256"`}},
		"another authority":               {o: rigOptions{issuerCA: stranger.CAPEM()}, want: wire.ReasonIdPUnreachable, log: []string{"keys cannot be fetched"}},
		"none, where WebPKI knows it not": {o: rigOptions{issuerCA: []byte{}}, want: wire.ReasonIdPUnreachable, log: []string{"keys cannot be fetched"}},
		"another audience":                {claims: map[string]any{"aud": "somebody-else", "azp": nil}, want: wire.ReasonTokenInvalid, log: []string{provider.ClientID(), "somebody-else"}},
		"another issuer":                  {claims: map[string]any{"iss": "https://evil.test"}, want: wire.ReasonTokenInvalid, log: []string{provider.Issuer(), "https://evil.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.provider = provider
			r := start(t, tt.o)
			l := r.laptop()
			txn := l.check(wire.PurposeLogin)
			refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", tt.claims)})
			if tt.want == "" {
				if refusal != nil {
					t.Error(refusal)
				}
				return
			}
			got := mustRefuse(t, "a login", refusal, tt.want)
			records := r.audited()
			last := records[len(records)-1]
			if last.ID != got.Decision || last.Decision != audit.Refused {
				t.Errorf("recorded %+v", last)
			}
			for _, part := range tt.log {
				if !strings.Contains(last.Error, part) {
					t.Errorf("the log says %q, want %q in it", last.Error, part)
				}
				if strings.Contains(got.Message, part) {
					t.Errorf("the person is told %q", got.Message)
				}
			}
		})
	}
}

func TestTransactionIsGoodOnceAndNotForLong(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop()
	txn := l.check(wire.PurposeLogin)
	in := wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}
	if refusal := l.session(in); refusal != nil {
		t.Fatal(refusal)
	}
	mustRefuse(t, "the same again", l.session(in), wire.ReasonLoginRequired)

	txn = l.check(wire.PurposeLogin)
	token := l.token("alice", nil)
	r.clock.advance(transactionLife + time.Second)
	mustRefuse(t, "after ten minutes", l.session(wire.SessionRequest{TXN: txn, IDToken: token}), wire.ReasonLoginRequired)
}

// Any replica goes on with what another began.
func TestAnotherReplicaGoesOn(t *testing.T) {
	t.Parallel()
	first := start(t, rigOptions{})
	l := first.laptop()
	txn := l.check(wire.PurposeLogin)
	second := start(t, rigOptions{provider: first.idp})
	// The same keys, as replicas have them.
	second.Control.o.Authorities = first.authority
	l.r = second
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}); refusal != nil {
		t.Fatal(refusal)
	}
}

func TestDeviceHasOneOwner(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	txn := l.check(wire.PurposeLogin)
	mustRefuse(t, "bob at alice's device", l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("bob", nil)}), wire.ReasonDeviceRefused)
	l.login("alice") // again

	r.load("devices.yaml", deviceManifest(l.id, "{owner: bob@example.com, approved: true}"))
	txn = l.check(wire.PurposeLogin)
	mustRefuse(t, "alice at what is bob's now", l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}), wire.ReasonDeviceRefused)
	l.login("bob")
	// A name alone is nobody: the owner is issuer and subject from now on.
	txn = l.check(wire.PurposeLogin)
	mustRefuse(t, "somebody else of bob's name",
		l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("carol", map[string]any{"email": "bob@example.com"})}), wire.ReasonDeviceRefused)
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { c.Login.Enrolment = v1alpha1.EnrolmentApproval }})
	l := r.laptop()
	txn := l.check(wire.PurposeEnroll)
	in := wire.EnrollRequest{TXN: txn, IDToken: l.token("alice", nil)}
	var state wire.DeviceState
	if refusal := r.post(wire.PathDeviceEnroll, in, &state); refusal != nil {
		t.Fatal(refusal)
	}
	want := wire.DeviceState{ID: l.id, Phase: "Pending", Tier: "software", Ownership: "personal", Owner: "alice@example.com"}
	if diff := cmp.Diff(want, state); diff != "" {
		t.Error(diff)
	}
	mustRefuse(t, "the same again", r.post(wire.PathDeviceEnroll, in, nil), wire.ReasonLoginRequired)

	_, refusal := l.submit(l.statement(wire.PurposeLogin))
	mustRefuse(t, "login before approval", refusal, wire.ReasonDeviceRefused)

	txn = l.check(wire.PurposeEnroll)
	mustRefuse(t, "bob enrols alice's device", r.post(wire.PathDeviceEnroll, wire.EnrollRequest{TXN: txn, IDToken: l.token("bob", nil)}, nil), wire.ReasonDeviceRefused)
	txn = l.check(wire.PurposeEnroll)
	mustRefuse(t, "a token of no transaction", r.post(wire.PathDeviceEnroll, wire.EnrollRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"nonce": "x"})}, nil), wire.ReasonTokenInvalid)

	r.load("devices.yaml", deviceManifest(l.id, "{approved: true, ownership: corporate}"))
	l.login("alice")
	client := l.stream()
	if refusal := l.ask(client, http.MethodGet, wire.PathDevice, nil, &state); refusal != nil {
		t.Fatal(refusal)
	}
	want.Phase, want.Ownership = "Approved", "corporate"
	if diff := cmp.Diff(want, state); diff != "" {
		t.Error(diff)
	}
	// Taken back, the session ends, and says why.
	events := l.listen(client)
	next(t, events, wire.EventClusters)
	r.load("devices.yaml", deviceManifest(l.id, "{approved: false, ownership: corporate}"))
	change := next(t, events, wire.EventSession).Session
	if !change.Ended || !strings.Contains(change.Reason, "waits for an administrator's approval") {
		t.Errorf("%+v", change)
	}
	for range events { // to its end
	}
	_, refusal = l.mint(l.stream(), "prod")
	if refusal == nil || refusal.Reason != wire.ReasonDevicePending && refusal.Reason != wire.ReasonRevoked || !strings.Contains(refusal.Message, "waits for an administrator's approval") || strings.Contains(refusal.Hint, "login") {
		t.Errorf("a token for what is not approved any more: %+v", refusal)
	}
	// Approval given again needs a new login all the same.
	r.load("devices.yaml", deviceManifest(l.id, "{approved: true, ownership: corporate}"))
	if _, refusal := l.mint(l.stream(), "prod"); refusal == nil {
		t.Error("the session that was ended lives")
	}
	l.login("alice")
	if _, refusal := l.mint(l.stream(), "prod"); refusal != nil {
		t.Error(refusal)
	}
}

func TestDeviceCode(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { c.Login.DeviceCode = true }})
	bare := map[string]any{"nonce": nil}

	l := r.laptop()
	txn := l.check(wire.PurposeLogin)
	// Young enough for the transactions to come.
	bare["iat"] = time.Now().Add(10 * time.Second).Unix()
	token := l.token("alice", bare)
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: token, DeviceCode: true}); refusal != nil {
		t.Fatal(refusal)
	}
	record, _ := r.store.Session(l.cert.Session)
	if record.Tier != "none" || l.cert.Tier != "none" || !cmp.Equal(record.Roles, []wire.Role{"guests"}) {
		t.Errorf("tier %q, roles %v; want none and what asks for none", record.Tier, record.Roles)
	}
	if _, ok := r.store.Snapshot().Device(l.id); ok {
		t.Error("a device code made a first owner")
	}

	tests := []struct {
		name  string
		token func(l *laptop) string
		want  wire.Reason
	}{
		{"the same token again", func(*laptop) string { return token }, wire.ReasonLoginRequired},
		{"the same token in another spelling", func(*laptop) string { return token[:20] + "\n" + token[20:] }, ""},
		{"with a nonce", func(l *laptop) string { return l.token("alice", nil) }, wire.ReasonTokenInvalid},
		{"older than the transaction", func(l *laptop) string {
			return l.token("alice", map[string]any{"nonce": nil, "iat": time.Now().Add(-time.Minute).Unix()})
		}, wire.ReasonTokenInvalid},
	}
	for _, tt := range tests {
		other := r.laptop()
		txn := other.check(wire.PurposeLogin)
		refusal := other.session(wire.SessionRequest{TXN: txn, IDToken: tt.token(other), DeviceCode: true})
		if refusal == nil || (tt.want != "" && refusal.Reason != tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, refusal, tt.want)
		}
	}
	mine := r.laptop().login("alice")
	r.load("devices.yaml", deviceManifest(mine.id, "{approved: true}"))
	txn = mine.check(wire.PurposeLogin)
	if refusal := mine.session(wire.SessionRequest{TXN: txn, IDToken: mine.token("alice", map[string]any{"nonce": nil, "jti": "another"}), DeviceCode: true}); refusal != nil {
		t.Fatal(refusal)
	}
	if record, _ := r.store.Session(mine.cert.Session); record.Tier != "software" || mine.cert.Tier != "software" || !record.DeviceCode {
		t.Errorf("at one's own approved device: %+v", record)
	}
}

// The first certificate ends with the issuer's word and the grace, and never
// after the session's longest length.
func TestCertificateIsClamped(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		exp  time.Duration
		set  func(*v1alpha1.Session)
		want time.Duration
	}{
		{"by its own life", 5 * time.Hour, func(*v1alpha1.Session) {}, time.Hour},
		{"by the ID token and the grace", 2 * time.Minute, func(*v1alpha1.Session) {}, 7 * time.Minute},
		{"by the session", 5 * time.Hour, func(s *v1alpha1.Session) { s.MaxLength = metav1.Duration{Duration: 10 * time.Minute} }, 10 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { tt.set(&c.Session) }})
			l := r.laptop()
			txn := l.check(wire.PurposeLogin)
			exp := time.Now().Add(tt.exp).Unix()
			if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"exp": exp})}); refusal != nil {
				t.Fatal(refusal)
			}
			if got := time.Until(l.cert.NotAfter); got > tt.want || got < tt.want-5*time.Second {
				t.Errorf("lasts %v, want %v", got, tt.want)
			}
		})
	}
}

// With the issuer down the gateway starts, refuses logins with a text,
// keeps what is logged in, and heals by itself.
func TestIssuerDownAtTheStart(t *testing.T) {
	t.Parallel()
	provider, err := idp.Start(t.Context(), idp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close()
	provider.SetFaults(idp.Faults{Down: true})
	r := start(t, rigOptions{provider: provider})
	l := r.laptop()
	txn := l.check(wire.PurposeLogin)
	refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)})
	got := mustRefuse(t, "a login", refusal, wire.ReasonIdPUnreachable)
	if got.Status() == http.StatusServiceUnavailable || !strings.Contains(got.Message, "identity provider") {
		t.Errorf("%d %q", got.Status(), got.Message)
	}
	provider.SetFaults(idp.Faults{})
	r.clock.advance(15 * time.Second) // the cool-down
	l.login("alice")

	provider.SetFaults(idp.Faults{Down: true})
	if _, refusal := l.mint(l.stream(), "prod"); refusal != nil {
		t.Errorf("a token while the issuer is down: %v", refusal)
	}
}

// What cannot be recorded is not issued.
func TestNothingIsIssuedUnrecorded(t *testing.T) {
	t.Parallel()
	t.Run("audit", func(t *testing.T) {
		t.Parallel()
		r := start(t, rigOptions{})
		l := r.laptop()
		txn := l.check(wire.PurposeLogin)
		r.Control.o.Audit.Close()
		mustRefuseAnyID(t, l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}), wire.ReasonAuditFailed)
		if n := len(r.store.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
	t.Run("state", func(t *testing.T) {
		t.Parallel()
		r := start(t, rigOptions{})
		l := r.laptop()
		txn := l.check(wire.PurposeLogin)
		r.store.Close()
		mustRefuseAnyID(t, l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}), wire.ReasonStoreFailed)
	})
}

func mustRefuseAnyID(t *testing.T, got *wire.Refusal, want wire.Reason) {
	t.Helper()
	if got == nil || got.Reason != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestLoginsAreBudgeted(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { c.Limits.LoginsPerSourcePerMinute = 3 }})
	l := r.laptop()
	for range 3 {
		l.check(wire.PurposeLogin)
	}
	_, refusal := l.submit(l.statement(wire.PurposeLogin))
	if got := mustRefuse(t, "the fourth", refusal, wire.ReasonLimit); got.Status() != http.StatusTooManyRequests {
		t.Errorf("status %d, want 429", got.Status())
	}
	r.clock.advance(20 * time.Second)
	l.check(wire.PurposeLogin)
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	var d wire.Discovery
	if refusal := exchange(t, r.http, http.MethodGet, r.url+wire.PathDiscovery, nil, &d); refusal != nil {
		t.Fatal(refusal)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(d.GatewayCA)) || !pool.Equal(r.authority.Roots(trust.Gateway)) {
		t.Error("the gateway's authority is not in it")
	}
	if d.OIDC.CA != string(r.idp.CAPEM()) || d.OIDC.Issuer != wire.Issuer(r.idp.Issuer()) || d.TrustDomain != domain || d.Enrolment != "Open" || d.OIDC.DeviceCode {
		t.Errorf("%+v", d)
	}
	if off := time.Since(d.Time); off < -time.Second || off > patience {
		t.Errorf("the time is off by %v", off)
	}
	var keys struct{ Keys []json.RawMessage }
	if refusal := exchange(t, r.http, http.MethodGet, r.url+wire.PathJWKS, nil, &keys); refusal != nil || len(keys.Keys) != 1 {
		t.Fatalf("%v, %d keys", refusal, len(keys.Keys))
	}
	if strings.Contains(string(keys.Keys[0]), `"d"`) {
		t.Error("the private key is published")
	}
}

// No secret that went through a login stands in the audit log.
func TestAuditHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop()
	txn := l.check(wire.PurposeLogin)
	idToken := l.token("alice", nil)
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: idToken}); refusal != nil {
		t.Fatal(refusal)
	}
	token, refusal := l.mint(l.stream(), "prod")
	if refusal != nil {
		t.Fatal(refusal)
	}
	data, err := os.ReadFile(filepath.Join(r.dir, "state", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"txn": txn, "id token": idToken, "token": token.Token, "nonce": l.nonce} {
		if strings.Contains(string(data), secret) {
			t.Errorf("the %s stands in the audit log", name)
		}
	}
}
