package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/wire"
)

// TestTrustCertificate: what the template states is what is read back.
func TestTrustCertificate(t *testing.T) {
	t.Parallel()
	ca, key, want := newAuthority(t, "trust"), newKey(t), testIdentity(t)
	want.NotBefore = time.Now().Add(-5 * time.Minute).UTC().Truncate(time.Second)
	want.NotAfter = want.NotBefore.Add(time.Hour)
	template, err := TrustTemplate(want, want.NotBefore, want.NotAfter, big.NewInt(0x0abc))
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.issue(t, template, key.Public())
	want.Serial = "abc"
	want.Key, _ = Thumbprint(key.Public())
	want.Device = DeviceID(want.Key)
	got, err := VerifyTrustChain([]*x509.Certificate{cert}, ca.pool(), domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(got.Device) != 20 || strings.ToLower(string(got.Device)) != string(got.Device) {
		t.Errorf("device id %q", got.Device)
	}
}

// TestThumbprint holds the thumbprint against the key and the value that RFC 9449,
// 4.1 and 6.1, give as an example.
func TestThumbprint(t *testing.T) {
	t.Parallel()
	coordinate := func(text string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	key := &ecdsa.PublicKey{
		Curve: elliptic.P256(),
		X:     coordinate("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"),
		Y:     coordinate("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"),
	}
	if got, err := Thumbprint(key); got != "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" || err != nil {
		t.Errorf("thumbprint %q, %v", got, err)
	}
	for _, text := range []wire.Thumbprint{"", "0ZcO", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J", "0ZcOCORZNYy+DWpqq30jZyJGHTN0d2HglBV3uiguA4I"} {
		if id := DeviceID(text); id != "" {
			t.Errorf("%q has the device id %q", text, id)
		}
	}
}

// TestParseRefuses changes one thing at a time about a good certificate.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	ca, good := newAuthority(t, "trust"), newKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edKey, _, _ := ed25519.GenerateKey(rand.Reader)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	uri := func(text string) *url.URL {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	proof := testIdentity(t).Proof
	trustURI := func(text string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs[0] = uri(text) }
	}
	user := func(text string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte(text) }
	}
	for name, test := range map[string]struct {
		change func(*x509.Certificate)
		key    crypto.PublicKey
		want   string
	}{
		"a DNS name as well":     {change: func(c *x509.Certificate) { c.DNSNames = []string{"gw.example.com"} }, want: "not a URI"},
		"an e-mail as well":      {change: func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b"} }, want: "not a URI"},
		"an address as well":     {change: func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }, want: "not a URI"},
		"two sessions":           {change: func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("zt://"+domain+"/trust/"+session)) }, want: "3 names"},
		"two sessions, no proof": {change: func(c *x509.Certificate) { c.URIs[1] = uri("zt://" + domain + "/trust/zzzzzzzzzzzzzzzz") }, want: "repeated"},
		"no proof":               {change: func(c *x509.Certificate) { c.URIs = c.URIs[:1] }, want: "1 names"},
		"no names":               {change: func(c *x509.Certificate) { c.URIs = nil }, want: "no subject alternative names"},
		"kubeconfig beside it":   {change: func(c *x509.Certificate) { c.URIs[1] = uri("zt://" + domain + "/kubeconfig/prod/1") }, want: "unexpected"},
		"other trust domain":     {change: trustURI("zt://other.example.com/trust/" + session), want: "unexpected"},
		"longer trust domain":    {change: trustURI("zt://" + domain + ".evil.test/trust/" + session), want: "unexpected"},
		"spiffe":                 {change: trustURI("spiffe://" + domain + "/trust/" + session), want: "unexpected"},
		"escaped letter":         {change: trustURI("zt://" + domain + "/trust/%61bcdefghijklmnopqrstuvwxyz"), want: "letters and digits"},
		"longer path":            {change: trustURI("zt://" + domain + "/trust/" + session + "/x"), want: "letters and digits"},
		"query":                  {change: trustURI("zt://" + domain + "/trust/" + session + "?x"), want: "letters and digits"},
		"empty fragment":         {change: func(c *x509.Certificate) { c.URIs[0].Opaque = "//" + domain + "/trust/" + session + "#" }, want: "letters and digits"},
		"upper-case scheme":      {change: func(c *x509.Certificate) { c.URIs[0].Scheme = "ZT" }, want: "unexpected"},
		"user in the URI":        {change: trustURI("zt://u@" + domain + "/trust/" + session), want: "unexpected"},
		"port in the URI":        {change: trustURI("zt://" + domain + ":443/trust/" + session), want: "unexpected"},
		"empty session":          {change: trustURI("zt://" + domain + "/trust/"), want: "letters and digits"},
		"short thumbprint":       {change: func(c *x509.Certificate) { c.URIs[1] = uri("zt://" + domain + "/proof/" + string(proof[:42])) }, want: "not a thumbprint"},
		"loose thumbprint": {change: func(c *x509.Certificate) {
			c.URIs[1] = uri("zt://" + domain + "/proof/" + strings.Repeat("A", 42) + "B")
		}, want: "not a thumbprint"},
		"server as well":        {change: func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }, want: "clientAuth alone"},
		"server instead":        {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, want: "clientAuth alone"},
		"any usage":             {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, want: "clientAuth alone"},
		"unknown usage as well": {change: func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }, want: "clientAuth alone"},
		"no usage":              {change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }, want: "no extended key usage"},
		"a CA":                  {change: func(c *x509.Certificate) { c.IsCA = true }, want: "CA"},
		"silent about CA":       {change: func(c *x509.Certificate) { c.BasicConstraintsValid = false }, want: "CA"},
		"signs certificates":    {change: func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, want: "key usage"},
		"no key usage":          {change: func(c *x509.Certificate) { c.KeyUsage = 0 }, want: "key usage"},
		"RSA key":               {key: rsaKey.Public(), want: "want ECDSA"},
		"Ed25519 key":           {key: edKey, want: "want ECDSA"},
		"P-224 key":             {key: p224.Public(), want: "another curve"},
		"no user":               {change: func(c *x509.Certificate) { c.ExtraExtensions = nil }, want: "no user"},
		"user without subject":  {change: user(`{"iss":"i","sub":"","name":"n"}`), want: "without"},
		"user with more":        {change: user(`{"iss":"i","sub":"s","name":"n","groups":[]}`), want: "canonical"},
		"user twice":            {change: user(`{"iss":"i","sub":"s","sub":"root","name":"n"}`), want: "canonical"},
		"user in other letters": {change: user(`{"Iss":"i","sub":"s","name":"n"}`), want: "canonical"},
		"user that is no JSON":  {change: user(`{`), want: "user extension"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			template := trustTemplate(t)
			if test.change != nil {
				test.change(template)
			}
			key := good.Public()
			if test.key != nil {
				key = test.key
			}
			cert := ca.issue(t, template, key)
			id, err := ParseTrustCertificate(cert, domain)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if diff := cmp.Diff(Identity{}, id); diff != "" {
				t.Errorf("an identity beside the error:\n%s", diff)
			}
		})
	}
	if _, err := ParseTrustCertificate(ca.issue(t, trustTemplate(t), good.Public()), "Other.Example.Com"); err == nil {
		t.Error("a certificate of another trust domain was accepted")
	}
}

// TestTemplateRefuses: nothing is issued that would not be read back.
func TestTemplateRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Identity){
		"trust domain with a path": func(id *Identity) { id.TrustDomain = "a/trust/b" },
		"upper-case trust domain":  func(id *Identity) { id.TrustDomain = "ZT.example.com" },
		"session with a slash":     func(id *Identity) { id.Session = "abcdefgh/../ijklmnop" },
		"short session":            func(id *Identity) { id.Session = "abc" },
		"no proof":                 func(id *Identity) { id.Proof = "" },
		"no issuer":                func(id *Identity) { id.User.Issuer = "" },
	} {
		id := testIdentity(t)
		change(&id)
		if _, err := TrustTemplate(id, time.Now(), time.Now().Add(time.Hour), big.NewInt(1)); err == nil {
			t.Errorf("%s: a template was made", name)
		}
	}
	for name, id := range map[string]KubeconfigIdentity{
		"cluster with a slash": {TrustDomain: domain, Cluster: "a/b", User: "u"},
		"no user":              {TrustDomain: domain, Cluster: "prod"},
	} {
		if _, err := KubeconfigTemplate(id, time.Now(), time.Now().Add(time.Hour), big.NewInt(1)); err == nil {
			t.Errorf("%s: a template was made", name)
		}
	}
}

// TestVerifyTrustChain: pool, time and purpose.
func TestVerifyTrustChain(t *testing.T) {
	t.Parallel()
	ca, other, key := newAuthority(t, "trust"), newAuthority(t, "trust"), newKey(t)
	leaf := ca.issue(t, trustTemplate(t), key.Public())
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		roots *x509.CertPool
		at    time.Time
		clock bool
	}{
		"nothing shown": {nil, ca.pool(), time.Now(), false},
		"nil pool":      {[]*x509.Certificate{leaf}, nil, time.Now(), false},
		"empty pool":    {[]*x509.Certificate{leaf}, x509.NewCertPool(), time.Now(), false},
		"V058 authority of the same name, but another purpose": {
			[]*x509.Certificate{other.issue(t, trustTemplate(t), key.Public())}, ca.pool(), time.Now(), false,
		},
		"brings its authority": {
			[]*x509.Certificate{other.issue(t, trustTemplate(t), key.Public()), other.cert}, ca.pool(), time.Now(), false,
		},
		"kubeconfig certificate of the same authority": {
			[]*x509.Certificate{ca.issue(t, kubeconfigTemplate(t, "prod"), key.Public())}, ca.pool(), time.Now(), false,
		},
		"expired":              {[]*x509.Certificate{leaf}, ca.pool(), leaf.NotAfter.Add(time.Second), true},
		"not yet valid":        {[]*x509.Certificate{leaf}, ca.pool(), leaf.NotBefore.Add(-time.Second), true},
		"the authority itself": {[]*x509.Certificate{ca.cert}, ca.pool(), time.Now(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := VerifyTrustChain(test.chain, test.roots, domain, test.at)
			var clock *ClockError
			if err == nil || errors.As(err, &clock) != test.clock {
				t.Errorf("error %v", err)
			}
			if test.roots == nil && !strings.Contains(err.Error(), "no authorities") {
				t.Errorf("the system's authorities were asked: %v", err)
			}
			if test.clock && clock.NotYetValid() != (name == "not yet valid") {
				t.Errorf("not yet valid: %t", clock.NotYetValid())
			}
		})
	}
}

// TestVerifyKubeconfigChain: one cluster, and the name must match the serial.
func TestVerifyKubeconfigChain(t *testing.T) {
	t.Parallel()
	ca, key := newAuthority(t, "kubeconfig"), newKey(t)
	verify := func(template *x509.Certificate, cluster wire.ClusterName) (KubeconfigIdentity, error) {
		chain := []*x509.Certificate{ca.issue(t, template, key.Public())}
		return VerifyKubeconfigChain(chain, ca.pool(), domain, cluster, time.Now())
	}
	id, err := verify(kubeconfigTemplate(t, "prod"), "prod")
	if err != nil || id.User != "alice@example.com" || id.Serial != "def" || id.Cluster != "prod" {
		t.Errorf("identity %+v, %v", id, err)
	}
	if _, err := verify(kubeconfigTemplate(t, "prod"), "dev"); err == nil {
		t.Error("accepted for another cluster")
	}
	if _, err := verify(trustTemplate(t), "prod"); err == nil {
		t.Error("a trust certificate was accepted")
	}
	serial := kubeconfigTemplate(t, "prod")
	serial.SerialNumber = big.NewInt(7)
	if _, err := verify(serial, "prod"); err == nil {
		t.Error("accepted with another serial number than the name says")
	}
	anonymous := kubeconfigTemplate(t, "prod")
	anonymous.Subject = pkix.Name{}
	if _, err := verify(anonymous, "prod"); err == nil {
		t.Error("accepted without a user")
	}
}

// FuzzParseTrustCertificate: no certificate makes the parser panic, and whatever it
// lets pass can be stated again.
func FuzzParseTrustCertificate(f *testing.F) {
	ca := newAuthority(f, "trust")
	f.Add(ca.issue(f, trustTemplate(f), newKey(f).Public()).Raw)
	f.Add(ca.issue(f, kubeconfigTemplate(f, "prod"), newKey(f).Public()).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if id, err := parseKubeconfig(cert, domain); err == nil && id.Cluster == "" {
			t.Errorf("no cluster: %+v", id)
		}
		id, err := ParseTrustCertificate(cert, domain)
		if err != nil {
			return
		}
		if _, err := TrustTemplate(id, id.NotBefore, id.NotAfter, cert.SerialNumber); err != nil {
			t.Error(err)
		}
	})
}
