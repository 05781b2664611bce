package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	controlIssuer = "https://gw.zt.test"
	controlKeyID  = "control-key"
	clusterUID    = wire.ClusterUID("uid-of-prod")
	furtherClient = "kubernetes-ci"
	loginClient   = "kubectl-zt"
)

// rig holds one provider, whose tokens are a further issuer's, and control's key.
type rig struct {
	t       *testing.T
	idp     *idp.Provider
	control *ecdsa.PrivateKey
	tokens  *Tokens
	further *FurtherIssuers
	auth    Authenticator
	fetches *atomic.Int32 // calls that left for an issuer, whoever made them
	failed  *atomic.Int32 // fetches of keys that were told as failed
}

type mapping struct {
	username string // YAML under claimMappings.username
	extra    string
	audience string
}

const byEmail = `{claim: email, prefix: "ci:"}`

func newRig(t *testing.T, m mapping) *rig {
	t.Helper()
	r := &rig{t: t, fetches: new(atomic.Int32), failed: new(atomic.Int32)}
	var err error
	r.idp, err = idp.Start(context.WithoutCancel(t.Context()), idp.Options{Algorithm: jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.idp.Close() })
	r.control, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.tokens = NewTokens(TokensOptions{
		Issuer: controlIssuer, UsernamePrefix: "zt:",
		Keys: func() jose.JSONWebKeySet {
			return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: r.control.Public(), KeyID: controlKeyID, Algorithm: "ES256", Use: "sig"}}}
		},
	})
	if m.username == "" {
		m.username = byEmail
	}
	if m.audience == "" {
		m.audience = furtherClient
	}
	r.further, err = NewFurtherIssuers(t.Context(), r.config(m), FurtherOptions{
		LoginClientID: loginClient, ControlIssuer: controlIssuer, UsernamePrefix: "zt:",
		Transport: r,
		Fetched: func(issuer wire.Issuer, _ time.Time, err error) {
			if err != nil && issuer == wire.Issuer(r.idp.Issuer()) {
				r.failed.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.auth = r.tokens.For(clusterUID, r.further)
	return r
}

// RoundTrip counts and passes on.
func (r *rig) RoundTrip(request *http.Request) (*http.Response, error) {
	r.fetches.Add(1)
	return r.idp.Transport().RoundTrip(request)
}

func (r *rig) config(m mapping) []byte {
	return fmt.Appendf(nil, `
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    audiences: [%q]
    certificateAuthority: |
%s
  claimMappings:
    username: %s
    groups: {claim: groups, prefix: "ci:"}
%s
`, r.idp.Issuer(), m.audience, indent(r.idp.CAPEM(), "      "), m.username, m.extra)
}

func indent(text []byte, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n"+by)
}

// mutation says how a token differs from a good one.
type mutation struct {
	header    map[string]any
	claims    map[string]any // nil removes
	payload   func(good []byte) []byte
	algorithm string
	key       *rsa.PrivateKey
	secret    func(*rig) []byte
	raw       func(token string) string
}

// kinds of tokens that every forgery is tried with.
var kinds = map[string]func(*rig, mutation) string{"control": (*rig).mintControl, "further": (*rig).mintFurther}

func (r *rig) mintFurther(m mutation) string {
	r.t.Helper()
	claims := map[string]any{"aud": furtherClient}
	maps.Copy(claims, m.claims)
	mint := idp.Mint{Claims: claims, Header: m.header, Algorithm: m.algorithm}
	return r.mint(m, mint)
}

func (r *rig) mintControl(m mutation) string {
	r.t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": controlIssuer, "sub": "subject-of-alice", "aud": string(clusterUID), "iat": now, "exp": now + 300, "jti": "jti-0123456789",
		"sid": "session-of-alice", "epoch": "1.7", "roles": []string{"dev"},
		"user": map[string]any{"iss": "https://idp.example.com", "sub": "subject-of-alice", "name": "alice@example.com"},
		"dev":  map[string]any{"id": "device-of-alice", "jkt": "thumbprint", "tier": "software", "ownership": "personal"},
		"cnf":  map[string]any{"jkt": "thumbprint"},
		// nil removes what the provider puts in by itself.
		"auth_time": now, "azp": nil, "amr": nil, "email": nil, "email_verified": nil, "name": nil, "preferred_username": nil, "groups": nil,
	}
	maps.Copy(claims, m.claims)
	header := map[string]any{"kid": controlKeyID, "typ": TokenType}
	maps.Copy(header, m.header)
	mint := idp.Mint{Claims: claims, Header: header, Algorithm: m.algorithm}
	if m.key == nil {
		mint.Key = r.control
		if m.algorithm == "" {
			mint.Algorithm = "ES256"
		}
	}
	return r.mint(m, mint)
}

func (r *rig) mint(m mutation, mint idp.Mint) string {
	r.t.Helper()
	if m.key != nil {
		mint.Key = m.key
	}
	if m.secret != nil {
		mint.Secret = m.secret(r)
	}
	if m.payload != nil {
		good := strings.Split(r.idp.MintIDToken("alice", mint), ".")[1]
		decoded, err := base64.RawURLEncoding.DecodeString(good)
		if err != nil {
			r.t.Fatal(err)
		}
		mint.Payload = m.payload(decoded)
	}
	token := r.idp.MintIDToken("alice", mint)
	if m.raw != nil {
		token = m.raw(token)
	}
	return token
}

// refused demands a refusal with a status and returns it.
func (r *rig) refused(token string, status int) *wire.Refusal {
	r.t.Helper()
	identity, refusal := r.auth.Authenticate(r.t.Context(), token)
	if refusal == nil {
		r.t.Fatalf("accepted as %+v", identity)
	}
	if refusal.Status() != status {
		r.t.Errorf("refused with %d, want %d: %v", refusal.Status(), status, refusal)
	}
	if len(token) > 20 && strings.Contains(refusal.Error(), token[:20]) {
		r.t.Errorf("the refusal holds the token: %q", refusal.Error())
	}
	return refusal
}

func (r *rig) accepted(token string) *Identity {
	r.t.Helper()
	identity, refusal := r.auth.Authenticate(r.t.Context(), token)
	if refusal != nil {
		r.t.Fatalf("refused: %+v", refusal)
	}
	return identity
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	alice, _ := r.idp.User("alice")

	got := r.accepted(r.mintControl(mutation{}))
	want := &Identity{
		Kind:    Control,
		User:    wire.User{Issuer: "https://idp.example.com", Subject: "subject-of-alice", Name: "alice@example.com"},
		Name:    "zt:alice@example.com",
		Session: "session-of-alice", Key: "thumbprint", Roles: []wire.Role{"dev"},
		Device: wire.Device{ID: "device-of-alice", Thumbprint: "thumbprint", Tier: "software", Ownership: "personal"},
		Epoch:  wire.Epoch{Generation: 1, Sequence: 7},
	}
	ignore := func(i *Identity) *Identity {
		c := *i
		c.Issued, c.Expires, c.evaluated = time.Time{}, time.Time{}, nil
		return &c
	}
	unexported := cmpopts.IgnoreUnexported(Identity{})
	if diff := cmp.Diff(want, ignore(got), unexported); diff != "" {
		t.Error(diff)
	}

	got = r.accepted(r.mintFurther(mutation{}))
	want = &Identity{
		Kind:   Further,
		User:   wire.User{Issuer: wire.Issuer(r.idp.Issuer()), Subject: wire.Subject(alice.Subject), Name: wire.Username("ci:" + alice.Email)},
		Name:   "ci:" + alice.Email,
		Groups: []string{"ci:employees"},
		Device: wire.Device{Tier: "none"},
	}
	if diff := cmp.Diff(want, ignore(got), unexported); diff != "" {
		t.Error(diff)
	}
	if got := r.fetches.Load(); got != 2 {
		t.Errorf("%d calls to the issuer, want discovery and keys", got)
	}
}

// TestForgeries tries each forgery as a token of control's and as one of a
// further issuer. None may cause a call to anywhere but the issuer's own
// discovery and keys.
func TestForgeries(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	publicText := func(r *rig) []byte {
		der, err := x509.MarshalPKIXPublicKey(r.idp.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	header := func(name string, value any) mutation { return mutation{header: map[string]any{name: value}} }
	claim := func(name string, value any) mutation { return mutation{claims: map[string]any{name: value}} }
	part := func(n int, change func(string) string) mutation {
		return mutation{raw: func(token string) string {
			parts := strings.Split(token, ".")
			parts[n] = change(parts[n])
			return strings.Join(parts, ".")
		}}
	}
	text := func(change func(string) string) mutation {
		return mutation{payload: func(good []byte) []byte { return []byte(change(string(good))) }}
	}
	now := time.Now().Unix()

	for vector, forgeries := range map[string]map[string]mutation{
		"V017": {
			"none":            {algorithm: "none"},
			"None":            {algorithm: "None"},
			"nOnE":            {algorithm: "nOnE"},
			"empty signature": part(2, func(string) string { return "" }),
			"cut signature":   part(2, func(s string) string { return s[:len(s)-4] }),
			"other signature": part(2, func(s string) string { return strings.Repeat("A", len(s)) }),
			"other key":       {key: rsaKey, algorithm: "RS256"},
		},
		"V018": {
			"HS256 by the public key": {algorithm: "HS256", secret: publicText},
			"HS512 by the public key": {algorithm: "HS512", secret: publicText},
			"HS256, header RS256":     {algorithm: "HS256", secret: publicText, header: map[string]any{"alg": "RS256"}},
		},
		"V019": {
			"jku":       header("jku", "https://evil.test/keys"),
			"x5u":       header("x5u", "https://evil.test/cert"),
			"jwk":       header("jwk", jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "evil"}),
			"x5c":       header("x5c", []string{"MIIB"}),
			"kid path":  header("kid", "../../../../dev/null"),
			"kid URL":   header("kid", "https://evil.test/key"),
			"kid quote": header("kid", "x' OR '1'='1"),
		},
		"V025": {
			"another client's":       claim("aud", "some-other-client"),
			"another client's, list": claim("aud", []string{"some-other-client", "and-another"}),
			"no audience":            claim("aud", nil),
			"logout token":           claim("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}),
			"logout type":            header("typ", "logout+jwt"),
			"another type":           header("typ", "secevent+jwt"),
		},
		"V026": {
			"expired":          claim("exp", now-61),
			"nbf ahead":        claim("nbf", now+120),
			"iat a day ahead":  claim("iat", now+24*3600),
			"no exp":           claim("exp", nil),
			"no iat":           claim("iat", nil),
			"exp as text":      claim("exp", fmt.Sprint(now+300)),
			"exp negative":     claim("exp", -1),
			"exp zero":         claim("exp", 0),
			"exp as list":      claim("exp", []int64{now + 300}),
			"exp null":         text(func(s string) string { return setClaim(t, s, "exp", "null") }),
			"exp 1e400":        text(func(s string) string { return setClaim(t, s, "exp", "1e400") }),
			"exp beyond years": text(func(s string) string { return setClaim(t, s, "exp", "99999999999999") }),
			"nbf as text":      claim("nbf", "now"),
		},
		"V031": {
			"subject twice":            text(func(s string) string { return `{"sub":"carol",` + s[1:] }),
			"subject in other letters": text(func(s string) string { return `{"SUB":"carol",` + s[1:] }),
			"with a Kelvin sign":       text(func(s string) string { return `{"\u212aid":1,"kid":2,` + s[1:] }),
			"twice inside":             text(func(s string) string { return `{"x":{"a":1,"a":2},` + s[1:] }),
			"something follows":        text(func(s string) string { return s + "{}" }),
			"deeply nested": text(func(s string) string {
				return `{"x":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + "," + s[1:]
			}),
			"not UTF-8":    text(func(s string) string { return `{"x":"` + "\xff" + `",` + s[1:] }),
			"crit":         header("crit", []string{"exp"}),
			"crit unknown": header("crit", []string{"urn:example"}),
			"zip":          header("zip", "DEF"),
			"b64":          header("b64", false),
			"JWE":          {raw: func(s string) string { return s + ".AAAA.AAAA" }},
			"JWE header":   header("enc", "A128GCM"),
			"padding":      part(1, func(s string) string { return s + "==" }),
			"two parts":    {raw: func(s string) string { return s[:strings.LastIndexByte(s, '.')] }},
		},
	} {
		t.Run(vector, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, mapping{})
			for _, mint := range kinds {
				r.accepted(mint(r, mutation{})) // the rig is good, and keys are known
			}
			before := r.fetches.Load()
			for name, m := range forgeries {
				for kind, mint := range kinds {
					t.Run(kind+" "+name, func(t *testing.T) {
						r := *r
						r.t = t
						r.refused(mint(&r, m), http.StatusUnauthorized)
					})
				}
			}
			if got := r.fetches.Load(); got != before {
				t.Errorf("%d calls were made because of what tokens say", got-before)
			}
		})
	}
}

// setClaim writes a literal that encoding/json would not.
func setClaim(t *testing.T, payload, name, literal string) string {
	t.Helper()
	var claims map[string]json.RawMessage
	if err := json.Unmarshal([]byte(payload), &claims); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("{")
	for n, value := range claims {
		if n != name {
			fmt.Fprintf(&b, "%q:%s,", n, value)
		}
	}
	fmt.Fprintf(&b, "%q:%s}", name, literal)
	return b.String()
}

// TestV033: what is too large is not even decoded. net/http answers 431 to a
// header of 8 MB before this package sees it (TestHeaderLimit).
func TestV033(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	refusal := r.refused(strings.Repeat("A", tokenLimit+1), http.StatusRequestHeaderFieldsTooLarge)
	if refusal.Reason != wire.ReasonTooLarge {
		t.Errorf("reason %s", refusal.Reason)
	}
	if r.fetches.Load() != 0 {
		t.Error("the issuer was asked")
	}
}

func TestV030(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind   string
		claims map[string]any
		map_   mapping
	}{
		"further user system:":      {"further", map[string]any{"who": "system:admin"}, mapping{username: `{expression: "claims.who"}`}},
		"further user System:":      {"further", map[string]any{"who": "SYSTEM:masters"}, mapping{username: `{expression: "claims.who"}`}},
		"further user zt's":         {"further", map[string]any{"who": "zt:alice@example.com"}, mapping{username: `{expression: "claims.who"}`}},
		"further user no prefix":    {"further", map[string]any{"who": "alice@example.com"}, mapping{username: `{expression: "claims.who"}`}},
		"further user only prefix":  {"further", map[string]any{"who": "ci:"}, mapping{username: `{expression: "claims.who"}`}},
		"further user long":         {"further", map[string]any{"who": "ci:" + strings.Repeat("x", 300)}, mapping{username: `{expression: "claims.who"}`}},
		"further user line break":   {"further", map[string]any{"who": "ci:a\nImpersonate-Group: x"}, mapping{username: `{expression: "claims.who"}`}},
		"further user space at end": {"further", map[string]any{"who": "ci:alice "}, mapping{username: `{expression: "claims.who"}`}},
		"further group system:":     {"further", map[string]any{"roles": []string{"system:masters"}}, mapping{}},
		"control user system:":      {"control", userClaim("system:admin"), mapping{}},
		"control user prefixed":     {"control", userClaim("zt:carol"), mapping{}},
		"control user empty":        {"control", userClaim(""), mapping{}},
		"control role":              {"control", map[string]any{"roles": []string{"system:masters"}}, mapping{}},
		"control role slash":        {"control", map[string]any{"roles": []string{"a/b"}}, mapping{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := test.map_
			r := newRig(t, m)
			if test.claims["roles"] != nil && test.kind == "further" {
				// The prefix of the configuration would hide the name: map by expression.
				r.remap(`
    groups: {expression: "claims.roles"}`)
			}
			refusal := r.refused(kinds[test.kind](r, mutation{claims: test.claims}), http.StatusForbidden)
			if refusal.Reason != wire.ReasonReservedIdentity {
				t.Errorf("reason %s: %v", refusal.Reason, refusal)
			}
		})
	}
}

func userClaim(name string) map[string]any {
	return map[string]any{"user": map[string]any{"iss": "https://idp.example.com", "sub": "subject-of-alice", "name": name}}
}

// remap replaces the mapping of groups.
func (r *rig) remap(groups string) {
	r.t.Helper()
	config := strings.Replace(string(r.config(mapping{username: byEmail, audience: furtherClient})), `
    groups: {claim: groups, prefix: "ci:"}`, groups, 1)
	further, err := NewFurtherIssuers(r.t.Context(), []byte(config), FurtherOptions{Transport: r, UsernamePrefix: "zt:"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.further = further
	r.auth = r.tokens.For(clusterUID, further)
}

func TestV027(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	for name, claims := range map[string]map[string]any{
		"not verified":  {"email_verified": false},
		"absent":        {"email_verified": nil},
		"the text true": {"email_verified": "true"},
		"one":           {"email_verified": 1},
		"two at signs":  {"email": "alice@example.com@evil.test"},
		"no at sign":    {"email": "alice"},
		"no e-mail":     {"email": nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			r.refused(r.mintFurther(mutation{claims: claims}), http.StatusUnauthorized)
		})
	}
}

func TestV028(t *testing.T) {
	t.Parallel()
	many := make([]string, 5000)
	want := make([]string, len(many))
	for i := range many {
		many[i] = fmt.Sprintf("g%d", i)
		want[i] = "ci:" + many[i]
	}
	r := newRig(t, mapping{})
	for name, test := range map[string]struct {
		groups any
		want   []string
		status int
	}{
		"text":           {"one", []string{"ci:one"}, 0},
		"null":           {json.RawMessage("null"), nil, 0},
		"object":         {map[string]any{"a": 1}, nil, http.StatusUnauthorized},
		"numbers":        {[]int{1, 2}, nil, http.StatusUnauthorized},
		"nested":         {[]any{[]string{"a"}}, nil, http.StatusUnauthorized},
		"5000 all there": {many, want, 0},
		"more than fits": {strings.Fields(strings.Repeat("group-with-a-long-name ", 5000)), nil, http.StatusRequestHeaderFieldsTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			token := r.mintFurther(mutation{claims: map[string]any{"groups": test.groups}})
			if test.status != 0 {
				r.refused(token, test.status)
				return
			}
			got := r.accepted(token).Groups
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestV029: a token that only names a place to ask for groups brings none, and
// nobody calls that place.
func TestV029(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	r.accepted(r.mintFurther(mutation{}))
	before := r.fetches.Load()
	identity := r.accepted(r.mintFurther(mutation{claims: map[string]any{
		"groups":         nil,
		"_claim_names":   map[string]string{"groups": "src1"},
		"_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://evil.test/groups", "access_token": "x"}},
	}}))
	if !identity.GroupsElsewhere || len(identity.Groups) != 0 {
		t.Errorf("groups %v, elsewhere %v: want none and a note, so that no role by group is held", identity.Groups, identity.GroupsElsewhere)
	}
	if got := r.fetches.Load(); got != before {
		t.Errorf("%d calls were made to resolve groups", got-before)
	}
}

func TestConfigurationIsStrict(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	good := string(r.config(mapping{username: byEmail, audience: furtherClient}))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the configuration", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, test := range map[string]struct{ config, want string }{
		"unknown field":         {replace("audiences:", "audience: x\n    audiences:"), "audience"},
		"the login's audience":  {replace(furtherClient, loginClient), "login client"},
		"control as issuer":     {replace(r.idp.Issuer(), controlIssuer), "disallowed"},
		"no username prefix":    {replace(byEmail, `{claim: email, prefix: ""}`), "username.prefix"},
		"no groups prefix":      {replace(`{claim: groups, prefix: "ci:"}`, `{claim: groups, prefix: ""}`), "groups.prefix"},
		"zt's prefix":           {replace(byEmail, `{claim: email, prefix: "zt:"}`), "reserved"},
		"Kubernetes' prefix":    {replace(byEmail, `{claim: email, prefix: "system:"}`), "reserved"},
		"zt's extra":            {good + "    extra: [{key: kube-zt.io/device, valueExpression: \"'x'\"}]\n", "zt's own"},
		"capital extra":         {good + "    extra: [{key: example.com/Foo, valueExpression: \"'x'\"}]\n", "lowercase"},
		"anonymous":             {good + "anonymous: {enabled: true}\n", "nobody is served"},
		"http":                  {replace("https://", "http://"), "https"},
		"another kind":          {"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: []\n", "AuthorizationConfiguration"},
		"certificate authority": {replace("-----BEGIN CERTIFICATE-----", "-----BEGIN NONSENSE-----"), "certificateAuthority"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewFurtherIssuers(t.Context(), []byte(test.config), FurtherOptions{LoginClientID: loginClient, ControlIssuer: controlIssuer, UsernamePrefix: "zt:"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	if _, err := NewFurtherIssuers(t.Context(), []byte(good), FurtherOptions{LoginClientID: loginClient}); err != nil {
		t.Errorf("the good configuration: %v", err)
	}
}

func TestAnotherClustersToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	token := r.mintControl(mutation{})
	r.accepted(token)
	// The cache must not know less than the verifier.
	other := r.tokens.For("another-uid", nil)
	if identity, refusal := other.Authenticate(t.Context(), token); refusal == nil {
		t.Errorf("accepted as %+v", identity)
	}
}
