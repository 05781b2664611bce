package authn

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// furtherProvider is one more issuer, and its part of a configuration.
func furtherProvider(t *testing.T, prefix, rest string) (*idp.Provider, string) {
	t.Helper()
	p, err := idp.Start(context.WithoutCancel(t.Context()), idp.Options{Algorithm: jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, fmt.Sprintf(`
- issuer:
    url: %s
    audiences: [%q]
    certificateAuthority: |
%s
  claimMappings:
    username: {claim: email, prefix: %q}
    groups: {claim: groups, prefix: %q}
%s`, p.Issuer(), furtherClient, indent(p.CAPEM(), "      "), prefix, prefix, rest)
}

// over makes the issuers of these parts, reached over the network.
func over(t *testing.T, parts ...string) (*FurtherIssuers, error) {
	t.Helper()
	config := "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:" + strings.Join(parts, "")
	return NewFurtherIssuers(t.Context(), []byte(config), FurtherOptions{LoginClientID: loginClient, ControlIssuer: controlIssuer, UsernamePrefix: "zt:"})
}

func mintFor(p *idp.Provider, claims map[string]any) string {
	all := map[string]any{"aud": furtherClient}
	for name, value := range claims {
		all[name] = value
	}
	return p.MintIDToken("alice", idp.Mint{Claims: all})
}

// Several issuers at once, each with prefixes of its own (B11), each behind an
// authority that only the configuration knows (F81): the same person at both is two
// people.
func TestSeveralIssuers(t *testing.T) {
	t.Parallel()
	ci, ciPart := furtherProvider(t, "ci:", "")
	corp, corpPart := furtherProvider(t, "corp:", "")
	f, err := over(t, ciPart, corpPart)
	if err != nil {
		t.Fatal(err)
	}
	for prefix, p := range map[string]*idp.Provider{"ci:": ci, "corp:": corp} {
		got, refusal := f.Authenticate(t.Context(), mintFor(p, nil))
		if refusal != nil {
			t.Fatalf("%s: %+v", prefix, refusal)
		}
		if got.Name != prefix+"alice@example.com" || len(got.Groups) != 1 || got.Groups[0] != prefix+"employees" || got.User.Issuer != wire.Issuer(p.Issuer()) {
			t.Errorf("%s: %s %v of %s", prefix, got.Name, got.Groups, got.User.Issuer)
		}
	}
	// One issuer's key signs nothing for the other.
	_, refusal := f.Authenticate(t.Context(), mintFor(ci, map[string]any{"iss": corp.Issuer()}))
	if refusal == nil || refusal.Status() != http.StatusUnauthorized {
		t.Errorf("signed by another issuer: %+v", refusal)
	}

	// Without its authority the issuer cannot be believed, so nobody is.
	_, strayPart := furtherProvider(t, "ci:", "")
	before, after, _ := strings.Cut(strayPart, "    certificateAuthority: |\n")
	_, after, _ = strings.Cut(after, "-----END CERTIFICATE-----\n")
	stray, err := over(t, before+after)
	if err != nil {
		t.Fatal(err)
	}
	issuer := stray.Issuers()[0]
	_, refusal = stray.Authenticate(t.Context(), mintFor(ci, map[string]any{"iss": string(issuer)}))
	if refusal == nil || refusal.Reason != wire.ReasonIdPUnreachable {
		t.Errorf("without certificateAuthority: %+v", refusal)
	}
}

// Rules on claims, by value and by expression (F80, B11), and on who came out of
// them.
func TestClaimRules(t *testing.T) {
	t.Parallel()
	p, part := furtherProvider(t, "ci:", `
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: "claims.ref.startsWith('refs/heads/')", message: the ref is no branch}
  userValidationRules:
  - {expression: "!user.username.endsWith('@evil.test')", message: nobody of evil.test}
`)
	f, err := over(t, part)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]any{"hd": "example.com", "ref": "refs/heads/main"}
	for name, test := range map[string]struct {
		claims map[string]any
		cause  string // "" where it passes
	}{
		"all there":               {nil, ""},
		"required claim missing":  {map[string]any{"hd": nil}, "hd"},
		"required claim differs":  {map[string]any{"hd": "evil.test"}, "hd"},
		"required claim no text":  {map[string]any{"hd": []string{"example.com"}}, "hd"},
		"expression says no":      {map[string]any{"ref": "refs/tags/v1"}, "the ref is no branch"},
		"expression cannot judge": {map[string]any{"ref": nil}, "ref"},
		"user is refused":         {map[string]any{"email": "eve@evil.test"}, "nobody of evil.test"},
	} {
		claims := map[string]any{}
		for _, from := range []map[string]any{good, test.claims} {
			for name, value := range from {
				claims[name] = value
			}
		}
		identity, refusal := f.Authenticate(t.Context(), mintFor(p, claims))
		switch {
		case test.cause == "" && refusal != nil:
			t.Errorf("%s: %+v", name, refusal)
		case test.cause != "" && (refusal == nil || refusal.Status() != http.StatusUnauthorized):
			t.Errorf("%s: %+v, %+v", name, identity, refusal)
		case test.cause != "" && !strings.Contains(refusal.Cause, test.cause):
			t.Errorf("%s: the log hears %q, want %q in it", name, refusal.Cause, test.cause)
		}
	}
	if _, err := over(t, part+"  claimValidationRule: []\n"); err == nil || !strings.Contains(err.Error(), "claimValidationRule") {
		t.Errorf("an unknown field: %v", err)
	}
	if _, err := over(t, strings.Replace(part, "startsWith('", "startsWith(", 1)); err == nil || !strings.Contains(err.Error(), "expression") {
		t.Errorf("an expression that is none: %v", err)
	}
}

// What is said to a stranger is that a token does not fit; the log hears what was
// expected and what came (F76).
func TestExpectedAndGot(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	for name, test := range map[string]struct {
		token string
		cause []string
	}{
		"another audience":         {r.mintFurther(mutation{claims: map[string]any{"aud": "somebody-else"}}), []string{furtherClient, "somebody-else"}},
		"another issuer":           {r.mintFurther(mutation{claims: map[string]any{"iss": "https://evil.test"}}), []string{r.idp.Issuer(), "https://evil.test"}},
		"another cluster's token":  {r.mintControl(mutation{claims: map[string]any{"aud": "uid-of-dev"}}), []string{string(clusterUID), "uid-of-dev"}},
		"no access token, but one": {r.mintControl(mutation{header: map[string]any{"typ": "JWT"}}), []string{TokenType, "JWT"}},
	} {
		refusal := r.refused(test.token, http.StatusUnauthorized)
		for _, part := range test.cause {
			if !strings.Contains(refusal.Cause, fmt.Sprintf("%q", part)) {
				t.Errorf("%s: the log hears %q, want %q in it", name, refusal.Cause, part)
			}
		}
		for _, part := range test.cause[:1] {
			if strings.Contains(refusal.Error(), part) {
				t.Errorf("%s: a stranger is told %q", name, refusal.Error())
			}
		}
	}
}

// V025: an access token is no ID token, though the same issuer has signed it for the
// same audience.
func TestAccessTokenIsNoIDToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, mapping{})
	for _, typ := range []string{"at+jwt", "application/at+jwt", "AT+JWT"} {
		r.refused(r.mintFurther(mutation{header: map[string]any{"typ": typ}}), http.StatusUnauthorized)
	}
	r.accepted(r.mintFurther(mutation{header: map[string]any{"typ": "jwt"}}))
}
