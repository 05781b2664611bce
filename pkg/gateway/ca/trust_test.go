package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func identity(t *testing.T) trust.Identity {
	t.Helper()
	proof, err := trust.Thumbprint(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	return trust.Identity{
		Session: "abcdefghijklmnopqrstuvwxyz",
		Proof:   proof,
		User:    wire.User{Issuer: "https://idp.test", Subject: "00u-alice", Name: "alice@example.com"},
	}
}

func TestIssueTrust(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := open(t, t.TempDir(), c)
	key, id := newKey(t), identity(t)
	tests := []struct {
		name     string
		lifetime time.Duration
		want     time.Duration // from now; 0: refused
	}{
		{"an hour", time.Hour, time.Hour},
		{"ten years are clamped", 10 * 365 * 24 * time.Hour, MaxTrustLifetime},
		{"nothing left", 0, 0},
		{"less than nothing", -time.Minute, 0},
	}
	for _, tt := range tests {
		chain, err := a.IssueTrust(id, &key.PublicKey, tt.lifetime)
		if tt.want == 0 {
			if err == nil {
				t.Errorf("%s: issued", tt.name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got, err := trust.VerifyTrustChain(chain, a.Roots(trust.Trust), testDomain, c.Now())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := id
		want.TrustDomain = testDomain
		want.Key, _ = trust.Thumbprint(key.Public())
		want.Device = trust.DeviceID(want.Key)
		want.NotBefore, want.NotAfter = c.Now().Add(-5*time.Minute), c.Now().Add(tt.want)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(trust.Identity{}, "Serial")); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if n := chain[0].SerialNumber.BitLen(); n != 127 {
			t.Errorf("%s: serial has %d bits, want 127", tt.name, n)
		}
		for _, other := range trust.Purposes() {
			if other == trust.Trust {
				continue
			}
			if _, err := trust.VerifyTrustChain(chain, a.Roots(other), testDomain, c.Now()); err == nil {
				t.Errorf("%s: verifies under the authority for %s", tt.name, other)
			}
		}
	}
}

func TestSerialsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 10_000 {
		serial, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		if seen[serial.String()] {
			t.Fatalf("serial %v twice", serial)
		}
		seen[serial.String()] = true
	}
}

func TestOurOwnKeysAreNotCertified(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), newClock())
	prod, err := a.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]*ecdsa.PrivateKey{"token": a.token.key, "cluster": prod.authority.key}
	for purpose, authority := range a.purposes {
		keys[string(purpose)] = authority.key
	}
	for name, key := range keys {
		if _, err := a.IssueTrust(identity(t), &key.PublicKey, time.Hour); !errors.Is(err, ErrOurKey) {
			t.Errorf("%s: %v, want ErrOurKey", name, err)
		}
	}
}

func request(t *testing.T, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func point(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	p, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func requestPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// Of a request only the key counts (the spirit of V052): every name that it
// asks for is nowhere in the certificate.
func TestNamesInARequestAreIgnored(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), newClock())
	key := newKey(t)
	csr := requestPEM(request(t, key, &x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "mallory", Organization: []string{"system:masters"}},
		DNSNames:       []string{"gw.zt.test"},
		EmailAddresses: []string{"bob@example.com"},
		URIs:           []*url.URL{{Scheme: "zt", Host: testDomain, Path: "/trust/aaaaaaaaaaaaaaaaaaaaaaaaaa"}},
	}))
	pub, err := ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueTrust(identity(t), pub, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mallory", "system:masters", "gw.zt.test", "bob@example.com", "aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if strings.Contains(string(chain[0].Raw), name) {
			t.Errorf("the certificate holds %q", name)
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, newKey(t), &x509.CertificateRequest{})
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	// Somebody else's public key under a signature of one's own.
	mine, theirs := newKey(t), newKey(t)
	swapped := bytes.Replace(request(t, mine, &x509.CertificateRequest{}), point(t, mine), point(t, theirs), 1)
	tests := map[string]string{
		"empty":           "",
		"not PEM":         "hello",
		"another type":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good})),
		"two requests":    requestPEM(good) + requestPEM(good),
		"bad signature":   requestPEM(broken),
		"another's key":   requestPEM(swapped),
		"RSA":             requestPEM(request(t, rsaKey, &x509.CertificateRequest{})),
		"P-224":           requestPEM(request(t, p224, &x509.CertificateRequest{})),
		"P-384":           requestPEM(request(t, p384, &x509.CertificateRequest{})),
		"far too long":    requestPEM(make([]byte, maxRequest)),
		"cut in the body": requestPEM(good[:len(good)/2]),
	}
	for name, text := range tests {
		if _, err := ParseRequest(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseRequest(requestPEM(good)); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseRequest(text)
		if err == nil && (key.X == nil || key.X.Cmp(new(big.Int)) < 0) {
			t.Error("accepted without a key")
		}
	})
}
