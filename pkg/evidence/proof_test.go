package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/wire"
)

// TestProof: what was signed is what is read, and the identity comes from the
// certificate.
func TestProof(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	l := newLaptop(t, ca)
	now := time.Now()
	proof, err := VerifyProof(l.prove(t, []byte("hello")), ca.pool(), domain, now)
	if err != nil {
		t.Fatal(err)
	}
	if proof.Audience != cluster || proof.Renew || proof.Hello != sha256.Sum256([]byte("hello")) || proof.JTI == "" {
		t.Errorf("proof %+v", proof)
	}
	if left := proof.Expires.Sub(now); left <= 0 || left > MaxProofAge {
		t.Errorf("expires in %s", left)
	}
	if proof.Identity.User.Name != "alice@example.com" || proof.Identity.Serial != "abc" {
		t.Errorf("identity %+v", proof.Identity)
	}
	again, err := VerifyProof(l.prove(t, []byte("hello")), ca.pool(), domain, now)
	if err != nil || again.JTI == proof.JTI {
		t.Errorf("a second proof has the same id, %v", err)
	}
}

// TestProofFitsPreface: also with names as long as they get.
func TestProofFitsPreface(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	l := newLaptop(t, ca, func(c *x509.Certificate) {
		user, _ := json.Marshal(wire.User{
			Issuer:  wire.Issuer("https://" + strings.Repeat("i", 200)),
			Subject: wire.Subject(strings.Repeat("s", 255)),
			Name:    wire.Username(strings.Repeat("n", 254)),
		})
		c.ExtraExtensions[0].Value = user
		c.Subject.CommonName = strings.Repeat("n", 254)
	})
	jws := l.prove(t, []byte("hello"))
	t.Logf("%d bytes", len(jws))
	if _, err := VerifyProof(jws, ca.pool(), domain, time.Now()); err != nil {
		t.Error(err)
	}
	tooLong := newLaptop(t, ca, func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("n", 3000) })
	if _, err := SignProof(tooLong.proof, ProofRequest{Audience: cluster, Hello: []byte("h"), Now: time.Now(), Chain: tooLong.chain}); err == nil {
		t.Error("a proof was signed that no preface can carry")
	}
}

// forge makes a JWS of any header and claims, signed with key.
func forge(t testing.TB, key *ecdsa.PrivateKey, header, claims any) string {
	t.Helper()
	encode := func(v any) string {
		b, ok := v.([]byte)
		if !ok {
			var err error
			if b, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	input := encode(header) + "." + encode(claims)
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestProofForged changes one thing at a time about a proof, and signs it well.
func TestProofForged(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	l, stranger := newLaptop(t, ca), newLaptop(t, other)
	jwk := func(key crypto.PublicKey) any { return jose.JSONWebKey{Key: key} }
	x5c := func(certs ...*x509.Certificate) any {
		var out []string
		for _, c := range certs {
			out = append(out, base64.StdEncoding.EncodeToString(c.Raw))
		}
		return out
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	sum := sha256.Sum256([]byte("hello"))
	header := map[string]any{"alg": "ES256", "typ": proofType, "jwk": jwk(l.proof.Public()), "x5c": x5c(l.chain[0])}
	claims := map[string]any{
		"aud": cluster, "exp": time.Now().Add(30 * time.Second).Unix(), "jti": "abcdefghijklmnopqrst",
		"hello": base64.RawURLEncoding.EncodeToString(sum[:]),
	}
	with := func(m map[string]any, kv ...any) map[string]any {
		m = maps.Clone(m)
		for i := 0; i < len(kv); i += 2 {
			if kv[i+1] == nil {
				delete(m, kv[i].(string))
			} else {
				m[kv[i].(string)] = kv[i+1]
			}
		}
		return m
	}
	good := forge(t, l.proof, header, claims)
	if _, err := VerifyProof(good, ca.pool(), domain, time.Now()); err != nil {
		t.Fatalf("the test is void: %v", err)
	}
	parts := strings.Split(good, ".")
	doubled := func(old, add string) []byte {
		b, _ := json.Marshal(claims)
		return []byte(strings.Replace(string(b), old, add+old, 1))
	}
	server := ca.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(9), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, l.device.Public())
	for what, jws := range map[string]string{
		"empty":                       "",
		"dots":                        "..",
		"no signature":                parts[0] + "." + parts[1] + ".",
		"a fourth part":               good + ".x",
		"space around":                " " + good,
		"JSON form":                   `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"alg none":                    forge(t, l.proof, with(header, "alg", "none"), claims),
		"alg HS256":                   forge(t, l.proof, with(header, "alg", "HS256"), claims),
		"alg ES384":                   forge(t, l.proof, with(header, "alg", "ES384"), claims),
		"no typ":                      forge(t, l.proof, with(header, "typ", nil), claims),
		"typ of a statement":          forge(t, l.proof, with(header, "typ", statementType), claims),
		"typ of a token":              forge(t, l.proof, with(header, "typ", "JWT"), claims),
		"unknown crit":                forge(t, l.proof, with(header, "crit", []string{"x"}, "x", 1), claims),
		"payload not encoded":         forge(t, l.proof, with(header, "crit", []string{"b64"}, "b64", false), claims),
		"no jwk":                      forge(t, l.proof, with(header, "jwk", nil), claims),
		"jwk of the device":           forge(t, l.device, with(header, "jwk", jwk(l.device.Public())), claims),
		"jwk of a stranger":           forge(t, stranger.proof, with(header, "jwk", jwk(stranger.proof.Public())), claims),
		"jwk on P-384":                forge(t, l.proof, with(header, "jwk", jwk(p384.Public())), claims),
		"private jwk":                 forge(t, l.proof, with(header, "jwk", jose.JSONWebKey{Key: l.proof}), claims),
		"signed by another":           forge(t, stranger.proof, header, claims),
		"no x5c":                      forge(t, l.proof, with(header, "x5c", nil), claims),
		"empty x5c":                   forge(t, l.proof, with(header, "x5c", []string{}), claims),
		"x5c is no certificate":       forge(t, l.proof, with(header, "x5c", []string{"AAAA"}), claims),
		"x5c of another authority":    forge(t, stranger.proof, with(header, "jwk", jwk(stranger.proof.Public()), "x5c", x5c(stranger.chain...)), claims),
		"x5c of somebody else":        forge(t, l.proof, with(header, "x5c", x5c(newLaptop(t, ca).chain[0])), claims),
		"x5c of a server":             forge(t, l.proof, with(header, "x5c", x5c(server)), claims),
		"x5c begins with the CA":      forge(t, l.proof, with(header, "x5c", x5c(ca.cert, l.chain[0])), claims),
		"x5u":                         forge(t, l.proof, with(header, "x5c", nil, "x5u", "https://evil.test"), claims),
		"no aud":                      forge(t, l.proof, header, with(claims, "aud", nil)),
		"two auds":                    forge(t, l.proof, header, with(claims, "aud", []string{cluster, "other"})),
		"aud twice":                   forge(t, l.proof, header, doubled(`"aud"`, `"aud":"other",`)),
		"no exp":                      forge(t, l.proof, header, with(claims, "exp", nil)),
		"exp as text":                 forge(t, l.proof, header, with(claims, "exp", "1999999999")),
		"exp 1e400":                   forge(t, l.proof, header, doubled(`"exp"`, `"exp":1e400,`)),
		"negative exp":                forge(t, l.proof, header, with(claims, "exp", -1)),
		"no jti":                      forge(t, l.proof, header, with(claims, "jti", nil)),
		"short jti":                   forge(t, l.proof, header, with(claims, "jti", "a")),
		"long jti":                    forge(t, l.proof, header, with(claims, "jti", strings.Repeat("a", 65))),
		"no hello":                    forge(t, l.proof, header, with(claims, "hello", nil)),
		"short hello":                 forge(t, l.proof, header, with(claims, "hello", "AAAA")),
		"padded hello":                forge(t, l.proof, header, with(claims, "hello", base64.URLEncoding.EncodeToString(sum[:]))),
		"hello and renewal":           forge(t, l.proof, header, with(claims, "renew", true)),
		"claims are a list":           forge(t, l.proof, header, []byte(`[]`)),
		"claims are null":             forge(t, l.proof, header, []byte(`null`)),
		"something after the claims":  forge(t, l.proof, header, append(doubled("", ""), '{', '}')),
		"header is null":              forge(t, l.proof, []byte(`null`), claims),
		"larger than a preface holds": forge(t, l.proof, with(header, "pad", strings.Repeat("x", 4096)), claims),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			proof, err := VerifyProof(jws, ca.pool(), domain, time.Now())
			var refusal *wire.Refusal
			if err == nil || proof != nil || errors.As(err, &refusal) {
				t.Errorf("proof %+v, error %v", proof, err)
			}
		})
	}
	// Claims of identity are not read at all.
	claimed := forge(t, l.proof, header, with(claims, "sub", "root", "sid", "other", "iss", "https://evil.test"))
	if proof, err := VerifyProof(claimed, ca.pool(), domain, time.Now()); err != nil || proof.Identity.User.Subject != "1" {
		t.Errorf("%+v, %v", proof, err)
	}
	if _, err := VerifyProof(good, nil, domain, time.Now()); err == nil {
		t.Error("accepted without any authority")
	}
	if _, err := VerifyProof(good, ca.pool(), "other.example.com", time.Now()); err == nil {
		t.Error("accepted for another trust domain")
	}
}

// TestSignProofRefuses: an agent that asks for nonsense gets none.
func TestSignProofRefuses(t *testing.T) {
	t.Parallel()
	l := newLaptop(t, newAuthority(t))
	good := ProofRequest{Audience: cluster, Hello: []byte("hello"), Now: time.Now(), Chain: l.chain}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, test := range map[string]struct {
		key    crypto.Signer
		change func(*ProofRequest)
	}{
		"no audience":          {l.proof, func(r *ProofRequest) { r.Audience = "" }},
		"no hello":             {l.proof, func(r *ProofRequest) { r.Hello = nil }},
		"hello and renewal":    {l.proof, func(r *ProofRequest) { r.Renew = true }},
		"no certificate":       {l.proof, func(r *ProofRequest) { r.Chain = nil }},
		"key on another curve": {p384, func(*ProofRequest) {}},
	} {
		request := good
		test.change(&request)
		if _, err := SignProof(test.key, request); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// TestStatement: what the device key signed is what is read, with that key.
func TestStatement(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	want := wire.DeviceStatement{
		Purpose: wire.PurposeLogin, Audience: domain, Nonce: "n", IssuedAt: 1, Proof: "p", Platform: "linux", Hostname: "h",
	}
	jws, err := SignStatement(key, want)
	if err != nil {
		t.Fatal(err)
	}
	got, pub, err := VerifyStatement(jws, domain)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || !key.PublicKey.Equal(pub) {
		t.Errorf("(-want +got):\n%s", diff)
	}

	l := newLaptop(t, newAuthority(t))
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if _, err := SignStatement(p384, want); err == nil {
		t.Error("signed with a key on another curve")
	}
	if _, _, err := VerifyStatement(jws, "other.example.com"); err == nil {
		t.Error("accepted for another trust domain")
	}
	noAudience, _ := SignStatement(key, wire.DeviceStatement{})
	if _, _, err := VerifyStatement(noAudience, ""); err == nil {
		t.Error("accepted without an audience")
	}
	if _, _, err := VerifyStatement(l.prove(t, []byte("hello")), cluster); err == nil {
		t.Error("a proof was taken for a statement")
	}
	if _, _, err := VerifyStatement(strings.Repeat("a", maxStatement+1), domain); err == nil {
		t.Error("accepted at any size")
	}
	parts := strings.Split(jws, ".")
	if _, _, err := VerifyStatement(parts[0]+"."+parts[1]+"A."+parts[2], domain); err == nil {
		t.Error("accepted with another payload")
	}
}

// TestOIDCNonce holds the nonce against its definition.
func TestOIDCNonce(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("TXNJKT"))
	if got := OIDCNonce("TXN", "JKT"); got != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("nonce %q", got)
	}
}
