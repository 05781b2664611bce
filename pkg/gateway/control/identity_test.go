package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestMapPerson(t *testing.T) {
	t.Parallel()
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("group-%d", i)
	}
	manyJSON, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	const good = `"email": "alice@example.com", "email_verified": true`
	type result struct {
		Name    wire.Username
		Groups  []string
		Unknown bool
	}
	tests := []struct {
		name   string
		oidc   v1alpha1.OIDC
		claims string
		want   result
		refuse wire.Reason
	}{
		{name: "a list of groups", claims: good + `, "groups": ["a", "b"]`, want: result{"alice@example.com", []string{"a", "b"}, false}},
		{name: "one group as text", claims: good + `, "groups": "a"`, want: result{"alice@example.com", []string{"a"}, false}},
		{name: "groups null", claims: good + `, "groups": null`, want: result{Name: "alice@example.com"}},
		{name: "no groups", claims: good, want: result{Name: "alice@example.com"}},
		{name: "an empty list", claims: good + `, "groups": []`, want: result{"alice@example.com", []string{}, false}},
		{name: "5,000 groups", claims: good + `, "groups": ` + string(manyJSON), want: result{"alice@example.com", many, false}},
		{name: "groups an object", claims: good + `, "groups": {"a": true}`, refuse: wire.ReasonTokenInvalid},
		{name: "groups a number", claims: good + `, "groups": 7`, refuse: wire.ReasonTokenInvalid},
		{name: "a number among the groups", claims: good + `, "groups": ["a", 7]`, refuse: wire.ReasonTokenInvalid},
		{name: "a null among the groups", claims: good + `, "groups": ["a", null]`, refuse: wire.ReasonTokenInvalid},
		{name: "a list in the groups", claims: good + `, "groups": [["a"]]`, refuse: wire.ReasonTokenInvalid},
		{
			name:   "groups are elsewhere",
			claims: good + `, "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://evil.test/"}}`,
			want:   result{Name: "alice@example.com", Unknown: true},
		},
		{
			name:   "groups are here and elsewhere",
			claims: good + `, "groups": ["all-admins"], "_claim_names": {"groups": "src1"}`,
			want:   result{Name: "alice@example.com", Unknown: true},
		},
		{name: "something else is elsewhere", claims: good + `, "groups": ["a"], "_claim_names": {"photo": "src1"}`, want: result{"alice@example.com", []string{"a"}, false}},
		{name: "the names of what is elsewhere are nonsense", claims: good + `, "_claim_names": 7`, refuse: wire.ReasonTokenInvalid},
		{name: "another groups claim", oidc: v1alpha1.OIDC{GroupsClaim: "roles"}, claims: good + `, "groups": ["a"], "roles": ["r"]`, want: result{"alice@example.com", []string{"r"}, false}},
		{name: "a reserved group", claims: good + `, "groups": ["system:masters"]`, refuse: wire.ReasonReservedIdentity},
		{name: "a group of zt's own", claims: good + `, "groups": ["zt:admins"]`, refuse: wire.ReasonReservedIdentity},
		{name: "an empty group", claims: good + `, "groups": [""]`, refuse: wire.ReasonReservedIdentity},

		{name: "e-mail not verified", claims: `"email": "alice@example.com", "email_verified": false`, refuse: wire.ReasonTokenInvalid},
		{name: "e-mail verified in words", claims: `"email": "alice@example.com", "email_verified": "true"`, refuse: wire.ReasonTokenInvalid},
		{name: "e-mail verified by silence", claims: `"email": "alice@example.com"`, refuse: wire.ReasonTokenInvalid},
		{name: "two @", claims: `"email": "alice@evil.test@example.com", "email_verified": true`, refuse: wire.ReasonTokenInvalid},
		{name: "no @", claims: `"email": "alice", "email_verified": true`, refuse: wire.ReasonTokenInvalid},
		{name: "nothing before the @", claims: `"email": "@example.com", "email_verified": true`, refuse: wire.ReasonTokenInvalid},
		{name: "no name", claims: `"email_verified": true`, refuse: wire.ReasonTokenInvalid},
		{name: "a name that is null", claims: `"email": null, "email_verified": true`, refuse: wire.ReasonTokenInvalid},
		{name: "a name that is a list", claims: `"email": ["alice@example.com"], "email_verified": true`, refuse: wire.ReasonTokenInvalid},
		{name: "another claim needs no verified e-mail", oidc: v1alpha1.OIDC{UsernameClaim: "upn"}, claims: `"upn": "alice"`, want: result{Name: "alice"}},
		{name: "a name of Kubernetes'", oidc: v1alpha1.OIDC{UsernameClaim: "upn"}, claims: `"upn": "system:admin"`, refuse: wire.ReasonReservedIdentity},
		{name: "a name of zt's", oidc: v1alpha1.OIDC{UsernameClaim: "upn"}, claims: `"upn": "zt:alice"`, refuse: wire.ReasonReservedIdentity},
		{name: "a name with the configured prefix", oidc: v1alpha1.OIDC{UsernameClaim: "upn", UsernamePrefix: "corp:"}, claims: `"upn": "corp:alice"`, refuse: wire.ReasonReservedIdentity},
		{name: "an empty name", oidc: v1alpha1.OIDC{UsernameClaim: "upn"}, claims: `"upn": ""`, refuse: wire.ReasonReservedIdentity},
		{name: "a name that breaks a header", oidc: v1alpha1.OIDC{UsernameClaim: "upn"}, claims: `"upn": "alice\r\nImpersonate-Group: x"`, refuse: wire.ReasonReservedIdentity},
		{name: "a name without end", oidc: v1alpha1.OIDC{UsernameClaim: "upn"}, claims: `"upn": "` + strings.Repeat("a", 257) + `"`, refuse: wire.ReasonReservedIdentity},

		{name: "what is required is there", oidc: v1alpha1.OIDC{RequiredClaims: map[string]string{"hd": "example.com"}}, claims: good + `, "hd": "example.com"`, want: result{Name: "alice@example.com"}},
		{name: "what is required is in a list", oidc: v1alpha1.OIDC{RequiredClaims: map[string]string{"hd": "example.com"}}, claims: good + `, "hd": ["x", "example.com"]`, want: result{Name: "alice@example.com"}},
		{name: "what is required is something else", oidc: v1alpha1.OIDC{RequiredClaims: map[string]string{"hd": "example.com"}}, claims: good + `, "hd": "evil.test"`, refuse: wire.ReasonTokenInvalid},
		{name: "what is required is missing", oidc: v1alpha1.OIDC{RequiredClaims: map[string]string{"hd": "example.com"}}, claims: good, refuse: wire.ReasonTokenInvalid},
		{name: "what is required is true, not text", oidc: v1alpha1.OIDC{RequiredClaims: map[string]string{"hd": "true"}}, claims: good + `, "hd": true`, refuse: wire.ReasonTokenInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := v1alpha1.GatewayConfiguration{OIDC: tt.oidc}
			config.OIDC.Issuer = "https://idp.test"
			config.Default()
			var claims map[string]json.RawMessage
			decodeJSON(t, []byte("{"+tt.claims+"}"), &claims)
			p, refusal := mapPerson(&config.OIDC, "00u-alice", claims)
			if tt.refuse != "" {
				if refusal == nil || refusal.Reason != tt.refuse {
					t.Errorf("%+v, %v; want %s", p, refusal, tt.refuse)
				}
				return
			}
			if refusal != nil {
				t.Fatal(refusal)
			}
			if diff := cmp.Diff(tt.want, result{p.user.Name, p.groups, p.groupsUnknown}); diff != "" {
				t.Error(diff)
			}
			if p.user.Issuer != "https://idp.test" || p.user.Subject != "00u-alice" {
				t.Errorf("%+v", p.user)
			}
		})
	}
}

// Where the issuer only says where to ask for groups, roles that name groups do
// not match, even when the record holds some from before.
func TestUnknownGroupsMatchNoRole(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop()
	txn := l.check(wire.PurposeLogin)
	token := l.token("alice", map[string]any{"_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]string{"endpoint": r.idp.Issuer()}}})
	if refusal := l.session(wire.SessionRequest{TXN: txn, IDToken: token}); refusal != nil {
		t.Fatal(refusal)
	}
	record, _ := r.store.Session(l.cert.Session)
	if !record.GroupsUnknown || len(record.Roles) != 0 {
		t.Errorf("%+v", record)
	}
	_, refusal := l.mint(l.stream(), "prod")
	mustRefuse(t, "a token", refusal, wire.ReasonClusterUnknown)
}

func TestBudget(t *testing.T) {
	t.Parallel()
	now := time.Now()
	limit := 2
	b := newBudget(func() int { return limit }, func() time.Time { return now })
	a, neighbour, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff"), netip.MustParseAddr("2001:db8:1::1")
	take := func(addr netip.Addr) bool { return b.take(addr) == nil }
	steps := []struct {
		name string
		addr netip.Addr
		then func()
		want bool
	}{
		{"first", a, nil, true},
		{"second, of the same subscriber", neighbour, nil, true},
		{"third", a, nil, false},
		{"another subscriber", other, nil, true},
		{"half a minute later", a, func() { now = now.Add(31 * time.Second) }, true},
		{"and again", a, nil, false},
		{"at the moment of a larger budget", a, func() { limit = 600 }, false},
		{"a second after it", a, func() { now = now.Add(time.Second) }, true},
		{"no address at all", netip.Addr{}, nil, true},
	}
	for _, s := range steps {
		if s.then != nil {
			s.then()
		}
		if got := take(s.addr); got != s.want {
			t.Errorf("%s: %v, want %v", s.name, got, s.want)
		}
	}
}

// Whoever has a /48 has 65,536 sources, and not as many budgets.
func TestBudgetOfASite(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const perMinute = 2
	b := newBudget(func() int { return perMinute }, func() time.Time { return now })
	neighbour := netip.MustParseAddr("2001:db8:ffff::1")
	if b.take(neighbour) != nil {
		t.Fatal("the first is refused")
	}
	passed := 0
	for i := range 3 * budgetSources {
		if b.take(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 1, byte(i >> 8), byte(i)})) == nil {
			passed++
		}
	}
	if passed != siteBudgets*perMinute {
		t.Errorf("%d passed of one site, want %d", passed, siteBudgets*perMinute)
	}
	if n := b.sources.Len(); n > 3+passed {
		t.Errorf("%d sources are remembered", n)
	}
	if b.take(neighbour) != nil || b.take(neighbour) == nil {
		t.Error("a flood of another site has changed a budget")
	}
}
