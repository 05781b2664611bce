package control

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestToken(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	token, refusal := l.mint(l.stream(), "prod")
	if refusal != nil {
		t.Fatal(refusal)
	}
	if got := time.Until(token.Expires); got > 5*time.Minute || got < 4*time.Minute {
		t.Errorf("lasts %v, want 5 minutes", got)
	}
	// Roles, and no groups: what somebody is in besides concerns no cluster, and the
	// token stays short. One audience per cluster.
	signed, err := jose.ParseSigned(token.Token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	decodeJSON(t, signed.UnsafePayloadWithoutVerification(), &claims)
	held := []string{"amr", "aud", "auth_time", "cnf", "dev", "epoch", "exp", "iat", "iss", "jti", "roles", "sid", "sub", "user"}
	if diff := cmp.Diff(held, slices.Sorted(maps.Keys(claims))); diff != "" {
		t.Errorf("the token's claims: %s", diff)
	}
	if strings.Contains(string(signed.UnsafePayloadWithoutVerification()), "employees") {
		t.Error("a group of alice's stands in the token")
	}
	// What the kube part makes of it.
	cluster, err := r.authority.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	tokens := authn.NewTokens(authn.TokensOptions{
		Issuer: Issuer(domain), Keys: func() jose.JSONWebKeySet { return r.authority.TokenKeys() }, UsernamePrefix: "zt:",
	})
	got, refusal := tokens.For(cluster.UID, nil).Authenticate(t.Context(), token.Token)
	if refusal != nil {
		t.Fatal(refusal)
	}
	want := &authn.Identity{
		Kind: authn.Control, User: l.identity().User, Name: "zt:alice@example.com", Session: l.cert.Session, Key: l.jkt,
		Roles:  []wire.Role{"devs"},
		Device: wire.Device{ID: l.id, Thumbprint: l.jkt, Tier: "software", Ownership: "personal", Platform: "linux"},
		Epoch:  r.store.Snapshot().Epoch,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(authn.Identity{}, "Issued", "Expires"), cmpopts.IgnoreUnexported(authn.Identity{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	other, err := r.authority.Cluster("secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, refusal := tokens.For(other.UID, nil).Authenticate(t.Context(), token.Token); refusal == nil {
		t.Error("the token is good at another cluster")
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()

	_, absent := l.mint(client, "absent")
	_, invisible := l.mint(client, "secret")
	mustRefuse(t, "an unknown cluster", absent, wire.ReasonClusterUnknown)
	mustRefuse(t, "an invisible cluster", invisible, wire.ReasonClusterUnknown)
	if absent.Decision == invisible.Decision {
		t.Error("one decision id for two decisions")
	}
	absent.Decision, invisible.Decision = "", ""
	if diff := cmp.Diff(absent, invisible); diff != "" {
		t.Errorf("unknown and invisible do not look alike: %s", diff)
	}
	for _, odd := range []wire.ClusterName{"", "../x", "control", "PROD"} {
		_, refusal := l.mint(client, odd)
		mustRefuse(t, "cluster "+string(odd), refusal, wire.ReasonClusterUnknown)
	}
	_, refusal := l.mint(client, "lab")
	if got := mustRefuse(t, "a cluster that is switched off", refusal, wire.ReasonClusterDisabled); !strings.Contains(got.Message, "lab") {
		t.Errorf("%q does not name the cluster", got.Message)
	}
	r.revoke(v1alpha1.RevocationSpec{Cluster: "prod", Reason: "maintenance"})
	_, refusal = l.mint(client, "prod")
	mustRefuse(t, "a revoked cluster", refusal, wire.ReasonClusterRevoked)
}

// A record alone lets nobody in, and without one there is nothing to go by.
func TestTokenNeedsItsSession(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	record, _ := r.store.Session(l.cert.Session)

	gone := record
	gone.Thumbprint = r.laptop().jkt
	if err := r.store.PutSession(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	_, refusal := l.mint(client, "prod")
	mustRefuse(t, "a record of another device", refusal, wire.ReasonLoginRequired)

	record.Ended = r.clock.Now()
	if err := r.store.PutSession(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	_, refusal = l.mint(client, "prod")
	mustRefuse(t, "a session that has ended", refusal, wire.ReasonSessionEnded)
}

func TestCatalogue(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	r.reachable.Store(wire.ClusterName("prod"), "down")
	l := r.laptop().login("alice")
	var list wire.ClusterList
	if refusal := l.ask(l.stream(), http.MethodGet, wire.PathClusters, nil, &list); refusal != nil {
		t.Fatal(refusal)
	}
	prod, err := r.authority.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	lab, err := r.authority.Cluster("lab")
	if err != nil {
		t.Fatal(err)
	}
	want := []wire.Cluster{
		{
			Name: "lab", UID: lab.UID, CA: string(lab.CAPEM), Hidden: true, Server: "https://lab.zt.test",
			State: "reachable", Access: "Disabled", Policy: "Enforcing", Roles: []wire.Role{"devs"},
		},
		{
			Name: "prod", UID: prod.UID, CA: string(prod.CAPEM), DisplayName: "Production", Description: "the real thing",
			Labels: map[string]string{"env": "prod"}, Server: "https://prod.zt.test",
			State: "unreachable", Access: "Enabled", Policy: "Enforcing", Roles: []wire.Role{"devs"},
		},
	}
	if diff := cmp.Diff(want, list.Clusters); diff != "" {
		t.Error(diff)
	}
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	id := l.identity()
	if refusal := r.Admit(id, "prod"); refusal != nil {
		t.Errorf("prod: %v", refusal)
	}
	absent, invisible := r.Admit(id, "absent"), r.Admit(id, "secret")
	if absent == nil || invisible == nil || *absent != *invisible || absent.Reason != wire.ReasonClusterUnknown {
		t.Errorf("%v and %v", absent, invisible)
	}
	r.reachable.Store(wire.ClusterName("prod"), "down")
	if refusal := r.Admit(id, "prod"); refusal == nil || refusal.Reason != wire.ReasonClusterDown {
		t.Errorf("out of reach: %v", refusal)
	}
	stranger := id
	stranger.Session = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	if refusal := r.Admit(stranger, "prod"); refusal == nil || refusal.Reason != wire.ReasonLoginRequired {
		t.Errorf("an unknown session: %v", refusal)
	}
	if facts := r.Facts(id); !slices.Equal(facts.Groups, []string{"employees"}) || facts.Roles != nil || facts.Serial != id.Serial {
		t.Errorf("facts %+v", facts)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	events := l.listen(l.stream())
	names := func(e wire.Event) []string {
		var list []string
		for _, c := range e.Clusters {
			list = append(list, string(c.Name)+" "+c.State)
		}
		return list
	}
	if diff := cmp.Diff([]string{"lab reachable", "prod reachable"}, names(next(t, events, wire.EventClusters))); diff != "" {
		t.Error(diff)
	}
	r.reachable.Store(wire.ClusterName("prod"), "down")
	r.Changed()
	if diff := cmp.Diff([]string{"lab reachable", "prod unreachable"}, names(next(t, events, wire.EventClusters))); diff != "" {
		t.Error(diff)
	}
	r.Changed() // nothing is new, so nothing is said
	r.reachable.Delete(wire.ClusterName("prod"))
	r.Changed()
	if diff := cmp.Diff([]string{"lab reachable", "prod reachable"}, names(next(t, events, wire.EventClusters))); diff != "" {
		t.Error(diff)
	}
	r.revoke(v1alpha1.RevocationSpec{User: "alice@example.com", Reason: "left the company"})
	began := time.Now()
	change := next(t, events, wire.EventSession).Session
	if !change.Ended || change.Session != l.cert.Session || !strings.Contains(change.Reason, "left the company") {
		t.Errorf("%+v", change)
	}
	if change.Cause != wire.ReasonRevoked || change.Hint == "" || strings.Contains(change.Hint, "login") {
		t.Errorf("whom the administrators locked out is sent to %q because of %q", change.Hint, change.Cause)
	}
	for range events { // until the end
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the stream lived for another %v", took)
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	events := l.listen(l.stream())
	next(t, events, wire.EventClusters)
	select {
	case e := <-events:
		if e.Kind != wire.EventPing {
			t.Errorf("%+v, want a ping", e)
		}
	case <-time.After(pingEvery + patience):
		t.Error("no ping")
	}
}

// Roles that are lost are subtracted from every token out there at once; those
// that are gained wait for the next token.
func TestLostRolesAreSubtracted(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("carol")
	client := l.stream()
	events := l.listen(client)
	next(t, events, wire.EventClusters)
	token, refusal := l.mint(client, "secret")
	if refusal != nil {
		t.Fatal(refusal)
	}
	facts := r.tokenFacts(l, token)
	if removed := r.registry.Removed(facts); len(removed) != 0 {
		t.Fatalf("removed from the start: %v", removed)
	}

	r.load("objects.yaml", strings.Replace(objects, "groups: [all-admins]", "groups: [others]", 1))
	change := next(t, events, wire.EventSession).Session
	if change.Ended || !slices.Equal(change.Removed, []wire.Role{"admins"}) {
		t.Errorf("%+v", change)
	}
	eventually(t, "the token loses its role", func() bool {
		return slices.Equal(r.registry.Removed(facts), []wire.Role{"admins"})
	})
	_, refusal = l.mint(client, "secret")
	mustRefuse(t, "a cluster that is not seen any more", refusal, wire.ReasonClusterUnknown)

	r.load("objects.yaml", objects)
	eventually(t, "the role is back in a new token", func() bool {
		token, refusal := l.mint(client, "secret")
		return refusal == nil && len(r.registry.Removed(r.tokenFacts(l, token))) == 0
	})
	if removed := r.registry.Removed(facts); len(removed) == 0 {
		t.Error("the old token has its role back")
	}
}

func (r *rig) claims(token wire.Token) wire.TokenClaims {
	r.t.Helper()
	signed, err := jose.ParseSigned(token.Token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		r.t.Fatal(err)
	}
	var claims wire.TokenClaims
	decodeJSON(r.t, signed.UnsafePayloadWithoutVerification(), &claims)
	return claims
}

func (r *rig) factsOfClaims(l *laptop, claims wire.TokenClaims) revoke.Facts {
	facts := r.Facts(l.identity())
	facts.Roles, facts.Epoch = claims.Roles, claims.Epoch
	return facts
}

func (r *rig) tokenFacts(l *laptop, token wire.Token) revoke.Facts {
	r.t.Helper()
	return r.factsOfClaims(l, r.claims(token))
}

func TestLogout(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l, other := r.laptop().login("alice"), r.laptop().login("alice")
	client := l.stream()
	if refusal := l.ask(client, http.MethodPost, wire.PathLogout, struct{}{}, nil); refusal != nil {
		t.Fatal(refusal)
	}
	eventually(t, "the session is dead", func() bool { return r.registry.Check(r.Facts(l.identity())) != nil })
	if record, _ := r.store.Session(l.cert.Session); record.Ended.IsZero() {
		t.Error("the record does not say that it ended")
	}
	// A copy of the laptop's files opens a stream and gets nothing on it.
	_, refusal := l.mint(l.stream(), "prod")
	if refusal == nil || (refusal.Reason != wire.ReasonRevoked && refusal.Reason != wire.ReasonSessionEnded) {
		t.Errorf("after logout: %v", refusal)
	}
	if _, refusal := other.mint(other.stream(), "prod"); refusal != nil {
		t.Errorf("the other session: %v", refusal)
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	first := l.identity()
	refreshed := func(changes map[string]any) string {
		claims := map[string]any{"nonce": nil, "iat": r.clock.Now().Unix(), "exp": r.clock.Now().Add(time.Hour).Unix()}
		for k, v := range changes {
			claims[k] = v
		}
		return l.token("alice", claims)
	}
	renew := func(in wire.RenewRequest) (wire.Certificate, *wire.Refusal) {
		if in.CSR == "" {
			in.CSR = csr(t, l.key)
		}
		var cert wire.Certificate
		refusal := l.ask(client, http.MethodPost, wire.PathCertificate, in, &cert)
		return cert, refusal
	}
	r.clock.advance(30 * time.Minute)
	stale := time.Now().Add(-time.Hour).Unix()
	tests := []struct {
		name string
		in   wire.RenewRequest
		want wire.Reason
	}{
		{"nobody vouches", wire.RenewRequest{}, wire.ReasonLoginRequired},
		{"two vouch", wire.RenewRequest{IDToken: refreshed(nil), AccessToken: "x"}, wire.ReasonMalformed},
		{"another nonce", wire.RenewRequest{IDToken: refreshed(map[string]any{"nonce": "other"})}, wire.ReasonTokenInvalid},
		{"older than the last issue", wire.RenewRequest{IDToken: refreshed(map[string]any{"iat": stale})}, wire.ReasonTokenInvalid},
		{"another person", wire.RenewRequest{IDToken: refreshed(map[string]any{"sub": "00u-mallory"})}, wire.ReasonIdentityMismatch},
		{"another name", wire.RenewRequest{IDToken: refreshed(map[string]any{"email": "alicia@example.com"})}, wire.ReasonLoginRequired},
		{"another client", wire.RenewRequest{IDToken: refreshed(map[string]any{"aud": "other", "azp": "other"})}, wire.ReasonTokenInvalid},
		{"another key", wire.RenewRequest{IDToken: refreshed(nil), CSR: csr(t, newKey(t))}, wire.ReasonBindingMismatch},
	}
	for _, tt := range tests {
		_, refusal := renew(tt.in)
		mustRefuse(t, tt.name, refusal, tt.want)
	}

	cert, refusal := renew(wire.RenewRequest{IDToken: refreshed(nil)})
	if refusal != nil {
		t.Fatal(refusal)
	}
	l.cert = cert
	second := l.identity()
	if second.Session != first.Session || second.Key != first.Key || second.Proof != first.Proof || second.Serial == first.Serial || !second.NotAfter.After(first.NotAfter) {
		t.Errorf("%+v after %+v", second, first)
	}
	// The stream itself goes on past the first certificate's end.
	r.clock.advance(45 * time.Minute)
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Errorf("after the first certificate's end: %v", refusal)
	}
	// With the login's nonce a refreshed token is good, too.
	if cert, refusal = renew(wire.RenewRequest{IDToken: refreshed(map[string]any{"nonce": l.nonce})}); refusal != nil {
		t.Fatal(refusal)
	}
	l.cert = cert
	// Groups are the issuer's word of today (F24).
	r.clock.advance(2 * time.Minute)
	if cert, refusal = renew(wire.RenewRequest{IDToken: refreshed(map[string]any{"groups": []string{}})}); refusal != nil {
		t.Fatal(refusal)
	}
	l.cert = cert
	_, refusal = l.mint(client, "prod")
	mustRefuse(t, "out of the group", refusal, wire.ReasonClusterUnknown)
}

func TestRenewalNeverPassesTheSessionsEnd(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) {
		c.Session.MaxLength = metav1.Duration{Duration: 90 * time.Minute}
	}})
	l := r.laptop().login("alice")
	client := l.stream()
	end := l.cert.SessionEnd
	r.clock.advance(45 * time.Minute)
	in := wire.RenewRequest{CSR: csr(t, l.key), IDToken: l.token("alice", map[string]any{
		"nonce": nil, "iat": r.clock.Now().Unix(), "exp": r.clock.Now().Add(5 * time.Hour).Unix(),
	})}
	if refusal := l.ask(client, http.MethodPost, wire.PathCertificate, in, &l.cert); refusal != nil {
		t.Fatal(refusal)
	}
	if l.cert.NotAfter.After(end) || !l.cert.SessionEnd.Equal(end) {
		t.Errorf("certificate until %v, session until %v, want at most %v", l.cert.NotAfter, l.cert.SessionEnd, end)
	}
	token, refusal := l.mint(client, "prod")
	if refusal != nil || token.Expires.After(end) {
		t.Errorf("token until %v, %v", token.Expires, refusal)
	}
}

func TestRenewalByUserinfo(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	in := wire.RenewRequest{CSR: csr(t, l.key), AccessToken: r.accessToken("alice")}
	if refusal := l.ask(client, http.MethodPost, wire.PathCertificate, in, &l.cert); refusal != nil {
		t.Fatal(refusal)
	}
	in.AccessToken = r.accessToken("bob")
	refusal := l.ask(client, http.MethodPost, wire.PathCertificate, in, nil)
	mustRefuse(t, "bob's access token", refusal, wire.ReasonIdentityMismatch)
	in.AccessToken = "stolen"
	refusal = l.ask(client, http.MethodPost, wire.PathCertificate, in, nil)
	mustRefuse(t, "no access token at all", refusal, wire.ReasonLoginRequired)
}

func TestRenewalOfAnExpiredCertificate(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	request := func(l *laptop, certificate string) wire.RenewRequest {
		return wire.RenewRequest{
			TXN: l.check(wire.PurposeRenew), CSR: csr(t, l.key), Certificate: certificate,
			IDToken: l.token("alice", map[string]any{"nonce": nil, "iat": r.clock.Now().Unix(), "exp": r.clock.Now().Add(time.Hour).Unix()}),
		}
	}
	refusal := r.post(wire.PathSessionRenew, request(l, l.cert.Chain), nil)
	if got := mustRefuse(t, "a live certificate", refusal, wire.ReasonMethod); got.Status() != http.StatusConflict {
		t.Errorf("status %d, want 409", got.Status())
	}
	r.clock.advance(2 * time.Hour)
	first := l.identity()

	thief := r.laptop()
	mustRefuse(t, "from another device", r.post(wire.PathSessionRenew, request(thief, l.cert.Chain), nil), wire.ReasonBindingMismatch)
	// What a thief can copy: the certificate, the name of its proof key, and an
	// old request for it.
	copied := request(thief, l.cert.Chain)
	statement := thief.statement(wire.PurposeRenew)
	statement.Proof = first.Proof
	check, refusal := thief.submit(statement)
	if refusal != nil {
		t.Fatal(refusal)
	}
	copied.TXN, copied.CSR = check.TXN, csr(t, l.key)
	mustRefuse(t, "from another device with what can be copied", r.post(wire.PathSessionRenew, copied, nil), wire.ReasonBindingMismatch)
	noProof := *l
	noProof.proof = newKey(t)
	mustRefuse(t, "for another proof key", r.post(wire.PathSessionRenew, request(&noProof, l.cert.Chain), nil), wire.ReasonBindingMismatch)
	mustRefuse(t, "no certificate", r.post(wire.PathSessionRenew, request(l, ""), nil), wire.ReasonMalformed)
	login := request(l, l.cert.Chain)
	login.TXN = l.check(wire.PurposeLogin)
	mustRefuse(t, "a transaction for login", r.post(wire.PathSessionRenew, login, nil), wire.ReasonLoginRequired)

	in := request(l, l.cert.Chain)
	if refusal := r.post(wire.PathSessionRenew, in, &l.cert); refusal != nil {
		t.Fatal(refusal)
	}
	if second := l.identity(); second.Session != first.Session || second.Key != first.Key || !second.NotAfter.After(r.clock.Now()) {
		t.Errorf("%+v after %+v", second, first)
	}
	r.clock.advance(2 * time.Hour)
	in.Certificate = l.cert.Chain
	mustRefuse(t, "the same transaction again", r.post(wire.PathSessionRenew, in, nil), wire.ReasonLoginRequired)

	r.revoke(v1alpha1.RevocationSpec{Session: string(first.Session)})
	refusal = r.post(wire.PathSessionRenew, request(l, l.cert.Chain), nil)
	if refusal == nil || (refusal.Reason != wire.ReasonRevoked && refusal.Reason != wire.ReasonSessionEnded) {
		t.Errorf("a revoked session: %v", refusal)
	}
	late := r.laptop().login2(r, "bob")
	r.clock.advance(13 * time.Hour)
	refusal = r.post(wire.PathSessionRenew, request(late, late.cert.Chain), nil)
	mustRefuse(t, "after the session's end", refusal, wire.ReasonSessionEnded)
}

// login2 is login by a clock that was set.
func (l *laptop) login2(r *rig, user string) *laptop {
	r.t.Helper()
	txn := l.check(wire.PurposeLogin)
	in := wire.SessionRequest{TXN: txn, IDToken: l.token(user, map[string]any{"iat": r.clock.Now().Unix(), "exp": r.clock.Now().Add(time.Hour).Unix()})}
	if refusal := l.session(in); refusal != nil {
		r.t.Fatal(refusal)
	}
	return l
}

func TestStreamEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	events := l.listen(l.stream())
	next(t, events, wire.EventClusters)
	r.clock.advance(time.Hour + time.Second)
	began := time.Now()
	if change := next(t, events, wire.EventSession).Session; !change.Ended {
		t.Errorf("%+v", change)
	}
	for range events {
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("ended after %v", took)
	}
}

// A renewal preface is a stream of its own that opens nothing.
func TestRenewalPrefaceExtends(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Fatal(refusal)
	}
	r.clock.advance(40 * time.Minute)
	chain, err := r.authority.IssueTrust(trust.Identity{Session: l.identity().Session, Proof: l.identity().Proof, User: l.identity().User}, &l.key.PublicKey, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l.cert.Chain = chainPEM(chain)
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.preface(conn, nil); err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).CloseWrite()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the renewal was answered")
	}
	conn.Close()
	eventually(t, "the stream is extended", func() bool {
		for _, p := range r.all() {
			p.mu.Lock()
			extended := p.notAfter.Equal(chain[0].NotAfter)
			p.mu.Unlock()
			if extended {
				return true
			}
		}
		return false
	})
	r.clock.advance(40 * time.Minute)
	if _, refusal := l.mint(client, "prod"); refusal != nil {
		t.Errorf("past the first end: %v", refusal)
	}
}

// Without a preface, with another's, or with an expired one: nothing is served.
func TestStreamsThatAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	t.Run("no preface", func(t *testing.T) {
		t.Parallel()
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	t.Run("a proof for a cluster", func(t *testing.T) {
		t.Parallel()
		other := *l
		other.r = r
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		jws, err := evidence.SignProof(l.proof, evidence.ProofRequest{Audience: "another", Renew: true, Now: r.clock.Now(), Chain: l.chain()})
		if err != nil {
			t.Fatal(err)
		}
		if err := evidence.WritePreface(conn, jws); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		conn.(*net.TCPConn).CloseWrite()
		if n, _ := conn.Read(make([]byte, 1)); n != 0 {
			t.Error("answered")
		}
	})
	t.Run("revoked meanwhile", func(t *testing.T) {
		t.Parallel()
		doomed := r.laptop().login("bob")
		r.revoke(v1alpha1.RevocationSpec{Certificate: doomed.identity().Serial})
		_, refusal := doomed.mint(doomed.stream(), "prod")
		mustRefuse(t, "a revoked certificate", refusal, wire.ReasonRevoked)
	})
}

func TestDrainEndsEventsAndLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	client := l.stream()
	events := l.listen(client)
	next(t, events, wire.EventClusters)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); r.Drain(ctx) }()
	for range events {
	}
	client.CloseIdleConnections()
	<-done
	if ctx.Err() != nil {
		t.Error("drained by the limit only")
	}
}
