package control

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// A stranger who goes on asking costs counters and not disk.
func TestFloodDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) { c.Limits.LoginsPerSourcePerMinute = 1 }})
	const asked = 200
	limited := 0
	for range asked {
		if refusal := r.post(wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: "x"}, nil); refusal != nil && refusal.Reason == wire.ReasonLimit {
			limited++
		}
	}
	if limited < asked/2 {
		t.Fatalf("%d of %d were over the budget", limited, asked)
	}
	recorded := 0
	for _, record := range r.audited() {
		if record.Reason == wire.ReasonLimit {
			recorded++
		}
	}
	if recorded == 0 || recorded > limited/2 {
		t.Errorf("%d of %d refusals were recorded, want some and by far not all", recorded, limited)
	}
}

// Who had the device before keeps nothing of it when an administrator gives it to
// somebody else, also in a session that runs.
func TestOwnerOfARunningSessionChanges(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Fatal(refusal)
	}
	cut := make(chan *wire.Refusal, 1)
	defer r.registry.Register(r.Facts(l.identity()), func(refusal *wire.Refusal) { cut <- refusal })()
	r.load("devices.yaml", deviceManifest(l.id, "{owner: bob@example.com, approved: true}"))
	select {
	case refusal := <-cut:
		if refusal.Reason != wire.ReasonRevoked || !strings.Contains(refusal.Message, "this device belongs to somebody else") || strings.Contains(refusal.Hint, "login") {
			t.Errorf("%+v", refusal)
		}
	case <-time.After(patience):
		t.Fatal("what runs in the session lives on")
	}
	over := func(what string, refusal *wire.Refusal) {
		t.Helper()
		if refusal == nil || refusal.Reason != wire.ReasonRevoked && refusal.Reason != wire.ReasonDeviceRefused {
			t.Errorf("%s: %v", what, refusal)
		}
	}
	_, refusal := l.mint(l.stream(), "prod")
	over("a token", refusal)
	over("a stream to a cluster", r.Admit(l.identity(), "prod"))
	renewal := wire.RenewRequest{CSR: csr(t, l.key), IDToken: l.token("alice", map[string]any{"nonce": nil})}
	over("a renewal", l.ask(l.stream(), http.MethodPost, wire.PathCertificate, renewal, nil))
	eventually(t, "the record says so", func() bool {
		record, _ := r.store.Session(l.cert.Session)
		return !record.Ended.IsZero()
	})
}

// A renewal that was under way when the session was ended does not undo the end.
func TestRenewalDoesNotUndoTheEnd(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	seen, _ := r.store.Session(l.cert.Session)
	ended := seen
	ended.Ended = r.clock.Now()
	if err := r.store.PutSession(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	if err := r.putIssued(t.Context(), seen); err == nil {
		t.Error("the record of an ended session was written anew")
	}
	if record, _ := r.store.Session(l.cert.Session); record.Ended.IsZero() {
		t.Error("the session is not ended any more")
	}
}

// A renewed certificate that was revoked extends nothing.
func TestRevokedCertificateExtendsNothing(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Fatal(refusal)
	}
	r.clock.advance(40 * time.Minute)
	id := l.identity()
	chain, err := r.authority.IssueTrust(trust.Identity{Session: id.Session, Proof: id.Proof, User: id.User}, &l.key.PublicKey, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r.revoke(v1alpha1.RevocationSpec{Certificate: chain[0].SerialNumber.Text(16)})
	l.cert.Chain = chainPEM(chain)
	laptop, gateway := net.Pipe()
	go func() {
		defer laptop.Close() // after the preface comes nothing
		if err := l.preface(laptop, nil); err != nil {
			t.Error(err)
		}
	}()
	r.ServeStream(t.Context(), gateway, edge.Notes{Regime: edge.RegimeTunnel})
	for _, p := range r.all() {
		p.mu.Lock()
		if p.notAfter.After(id.NotAfter) {
			t.Errorf("a stream lives until %v, past the end of its own certificate", p.notAfter)
		}
		p.mu.Unlock()
	}
}

// Revoking the latest certificate of a session ends the session, also what was
// opened with an older one; revoking an older one does not.
func TestRevokedLatestCertificateEndsTheSession(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Fatal(refusal)
	}
	first := l.identity()
	renew := func() {
		t.Helper()
		in := wire.RenewRequest{CSR: csr(t, l.key), IDToken: l.token("alice", map[string]any{"nonce": nil})}
		if refusal := l.ask(l.stream(), http.MethodPost, wire.PathCertificate, in, &l.cert); refusal != nil {
			t.Fatal(refusal)
		}
	}
	renew()
	second := l.identity()
	renew()
	r.revoke(v1alpha1.RevocationSpec{Certificate: second.Serial})
	r.Changed()
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Errorf("with an older certificate revoked: %v", refusal)
	}
	cut := make(chan *wire.Refusal, 1)
	defer r.registry.Register(r.Facts(first), func(refusal *wire.Refusal) { cut <- refusal })()
	r.revoke(v1alpha1.RevocationSpec{Certificate: l.identity().Serial})
	if refusal := r.Admit(first, "prod"); refusal == nil || refusal.Reason != wire.ReasonRevoked {
		t.Errorf("a stream by the first certificate: %v", refusal)
	}
	select {
	case refusal := <-cut:
		if !strings.Contains(refusal.Message, "certificate") {
			t.Errorf("%+v", refusal)
		}
	case <-time.After(patience):
		t.Error("what was opened with the first certificate lives on")
	}
}

// An expired certificate renews nothing on gw. while the session lives by a newer
// one, unless the answer that brought the newer was lost.
func TestOldCertificateRenewsNoLiveSession(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	request := func() wire.RenewRequest {
		return wire.RenewRequest{CSR: csr(t, l.key), IDToken: l.token("alice", map[string]any{
			"nonce": nil, "iat": r.clock.Now().Unix(), "exp": r.clock.Now().Add(8 * time.Hour).Unix(),
		})}
	}
	first := l.cert
	r.clock.advance(30 * time.Minute)
	var second wire.Certificate
	if refusal := l.ask(client, http.MethodPost, wire.PathCertificate, request(), &second); refusal != nil {
		t.Fatal(refusal)
	}
	r.clock.advance(40 * time.Minute) // the first is over, the second is not
	expired := func(certificate wire.Certificate) wire.RenewRequest {
		in := request()
		in.TXN, in.Certificate = l.check(wire.PurposeRenew), certificate.Chain
		return in
	}
	l.cert = second
	if _, refusal := l.mint(l.stream(), "prod"); refusal != nil { // shows it
		t.Fatal(refusal)
	}
	refusal := r.post(wire.PathSessionRenew, expired(first), nil)
	if got := mustRefuse(t, "the first while the second lives", refusal, wire.ReasonMethod); got.Status() != http.StatusConflict {
		t.Errorf("status %d, want 409", got.Status())
	}
	r.clock.advance(40 * time.Minute) // both are over
	var third wire.Certificate
	if refusal := r.post(wire.PathSessionRenew, expired(first), &third); refusal != nil {
		t.Errorf("when no certificate lives: %v", refusal)
	}
	// The answer is lost: nobody shows the third.
	if refusal := r.post(wire.PathSessionRenew, expired(second), nil); refusal != nil {
		t.Errorf("when the newest was never shown: %v", refusal)
	}
	record, _ := r.store.Session(l.cert.Session)
	record.Ended = r.clock.Now()
	if err := r.store.PutSession(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	r.Changed()
	eventually(t, "what was shown of an ended session is forgotten", func() bool { _, known := r.shown.Load(record.ID); return !known })
}

// Who logs in takes no name that a further issuer may give, at a login and later:
// roles are matched by name.
func TestNamesOfFurtherIssuersAreReserved(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{foreign: func(name string) bool { return strings.HasPrefix(name, "ci:") }})
	for what, claims := range map[string]map[string]any{
		"user":  {"email": "ci:deployer@example.com"},
		"group": {"groups": []string{"employees", "ci:deployers"}},
	} {
		l := r.laptop()
		txn := l.check(wire.PurposeLogin)
		refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", claims)})
		if got := mustRefuse(t, what, refusal, wire.ReasonReservedIdentity); !strings.Contains(got.Message, "another issuer") {
			t.Error(got.Message)
		}
	}
	l := r.laptop().login("alice")
	renewal := wire.RenewRequest{CSR: csr(t, l.key), IDToken: l.token("alice", map[string]any{"nonce": nil, "groups": []string{"ci:deployers"}})}
	mustRefuse(t, "a group at a renewal", l.ask(l.stream(), http.MethodPost, wire.PathCertificate, renewal, nil), wire.ReasonReservedIdentity)

	other := start(t, rigOptions{provider: r.idp})
	l = other.laptop()
	txn := l.check(wire.PurposeLogin)
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: l.token("alice", map[string]any{"groups": []string{"ci:deployers"}})}); refusal != nil {
		t.Errorf("where there is no further issuer: %v", refusal)
	}
}
