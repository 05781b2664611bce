package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/device"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// issueFor is a gateway that issues whatever it is told to.
func issueFor(t *testing.T, ca *gatewaytest.Authority, key, proof *ecdsa.PrivateKey, change func(*trust.Identity)) wire.Certificate {
	t.Helper()
	jkt, err := evidence.Thumbprint(proof.Public())
	if err != nil {
		t.Fatal(err)
	}
	id := trust.Identity{
		TrustDomain: "trust.zt.test", Session: "abcdefghijklmnopqrst", Proof: jkt,
		User: wire.User{Issuer: "https://idp.test", Subject: "s", Name: "alice"},
	}
	if change != nil {
		change(&id)
	}
	now := time.Now()
	template, err := trust.TrustTemplate(id, now.Add(-5*time.Minute), now.Add(time.Hour), big.NewInt(7))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Certificate{
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Session: "abcdefghijklmnopqrst", Time: now,
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A certificate is ours only if every name in it is.
func TestIssuedCertificateIsChecked(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "zt")
	home := profile.Home{Dir: dir, Run: filepath.Join(dir, "run")}
	if err := home.Prepare(); err != nil {
		t.Fatal(err)
	}
	key, err := device.Open(home, "zt.test")
	if err != nil {
		t.Fatal(err)
	}
	ours, ca, proof := key.Signer.(*ecdsa.PrivateKey), gatewaytest.NewAuthority(t, "trust"), newKey(t)
	p := &profile.Profile{TrustDomain: "trust.zt.test", OIDC: wire.OIDC{Issuer: "https://idp.test"}}
	for _, tc := range []struct {
		name   string
		issued wire.Certificate
		says   string
	}{
		{"ours", issueFor(t, ca, ours, proof, nil), ""},
		{"another device key", issueFor(t, ca, newKey(t), proof, nil), "another device key"},
		{"another proof key", issueFor(t, ca, ours, newKey(t), nil), "another proof key"},
		{"another session", issueFor(t, ca, ours, proof, func(id *trust.Identity) { id.Session = "zzzzzzzzzzzzzzzzzzzz" }), "two session names"},
		{"another issuer", issueFor(t, ca, ours, proof, func(id *trust.Identity) { id.User.Issuer = "https://evil.test" }), "another issuer"},
		{"another trust domain", issueFor(t, ca, ours, proof, func(id *trust.Identity) { id.TrustDomain = "evil.test" }), "not ours"},
		{"no certificate", wire.Certificate{Chain: "x"}, "no PEM certificate"},
		{"a CA", wire.Certificate{Chain: ca.PEM}, "not ours"},
	} {
		_, err := newIdentity(p, key, proof, tc.issued)
		switch {
		case tc.says == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	c := &clock{now: func() time.Time { return now }}
	sample := func(offset, trip time.Duration) {
		sent := now
		now = now.Add(trip)
		c.observe(sent.Add(trip/2).Add(offset), sent)
	}
	sample(time.Hour, 100*time.Millisecond)
	if got := c.skew(); got != time.Hour {
		t.Errorf("first sample: %s", got)
	}
	sample(time.Hour+400*time.Millisecond, time.Second)
	if got := c.skew(); got != time.Hour {
		t.Errorf("a worse sample won: %s", got)
	}
	sample(time.Hour+20*time.Millisecond, 50*time.Millisecond)
	if got := c.skew(); got != time.Hour+20*time.Millisecond {
		t.Errorf("a better sample lost: %s", got)
	}
	// Somebody has set the laptop's clock: what was measured before is not merely
	// better or worse but wrong, and the slowest answer shows it.
	sample(0, 4*time.Second)
	if got := c.skew(); got != 0 {
		t.Errorf("the clock was corrected, and the offset stays: %s", got)
	}
	now = now.Add(time.Hour)
	sample(-time.Second, 3*time.Second)
	if got := c.skew(); got != -time.Second {
		t.Errorf("an old sample won: %s", got)
	}
	if got := c.here(c.Now()); !got.Equal(now) {
		t.Errorf("there and back: %s", got)
	}
	for _, tc := range []struct {
		off     time.Duration
		warns   bool
		refuses bool
	}{{30 * time.Second, false, false}, {-10 * time.Minute, true, false}, {10 * time.Minute, true, false}, {-16 * time.Minute, false, true}, {16 * time.Minute, false, true}} {
		c.offset = tc.off
		warning, err := c.check()
		if (warning != "") != tc.warns || (err != nil) != tc.refuses {
			t.Errorf("%s: %q %v", tc.off, warning, err)
		}
		if err != nil && !strings.Contains(err.Error(), "clock skew") {
			t.Errorf("%s: %v", tc.off, err)
		}
	}
}

// What control pushed last serves also him whose time control has used up.
func TestKnownCatalogueIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := newCatalogue()
	if !c.set(nil) || c.set([]wire.Cluster{}) {
		t.Error("the first push is news, the same again is none")
	}
	spent, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // select takes any of two
		if err := c.wait(spent); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		ours, least string
		ok          bool
	}{
		{"v1.2.3", "", true},
		{"v1.2.3", "v1.2.3", true},
		{"v1.10.0", "v1.9.9", true},
		{"v1.2.3-rc.1+meta", "v1.2.3", true},
		{"v1.2.2", "v1.2.3", false},
		{"v0.9.9", "1.0.0", false},
		{"devel", "v9.9.9", true},
		{"v0.0.0-dev", "v9.9.9", true},
		{"v0.0.1", "v9.9.9", false},
		{"v1.2", "v1.3.0", true},
	} {
		if err := oldEnough(tc.ours, tc.least); (err == nil) != tc.ok {
			t.Errorf("%s for %s: %v", tc.ours, tc.least, err)
		}
	}
	if !Newer("v1.1.0", "v1.0.9") || Newer("v1.0.0", "v1.0.0") || Newer("devel", "v1.0.0") || Newer("v1.0.0", "devel") {
		t.Error("Newer")
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]wire.ClusterName{
		"prod.zt.test": "prod", "zt.test": "", ".zt.test": "", "a.prod.zt.test": "", "prod.direct.zt.test": "", "prod.zt.test.evil": "", "prodzt.test": "",
		"gw.zt.test": "", "tunnel.zt.test": "", "direct.zt.test": "", "control.zt.test": "", "control": "",
	} {
		if got := clusterOf(host, "zt.test"); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

func TestClustersThatCannotBe(t *testing.T) {
	t.Parallel()
	ca := gatewaytest.NewAuthority(t, "c").PEM
	good := wire.Cluster{Name: "prod", UID: "u", CA: ca, Server: "https://prod.zt.test"}
	if !validCluster(good, "zt.test") {
		t.Fatal("a good one is refused")
	}
	for name, bend := range map[string]func(*wire.Cluster){
		"reserved":       func(c *wire.Cluster) { c.Name, c.Server = "control", "https://control.zt.test" },
		"capitals":       func(c *wire.Cluster) { c.Name, c.Server = "Prod", "https://Prod.zt.test" },
		"newline":        func(c *wire.Cluster) { c.Name, c.Server = "a\nb", "https://a\nb.zt.test" },
		"no UID":         func(c *wire.Cluster) { c.UID = "" },
		"no CA":          func(c *wire.Cluster) { c.CA = "" },
		"another server": func(c *wire.Cluster) { c.Server = "https://evil.test" },
		"trailing dash":  func(c *wire.Cluster) { c.Name, c.Server = "a-", "https://a-.zt.test" },
	} {
		c := good
		bend(&c)
		if validCluster(c, "zt.test") {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestChangesNameWhatIsFixed(t *testing.T) {
	t.Parallel()
	a, b := gatewaytest.NewAuthority(t, "a").PEM, gatewaytest.NewAuthority(t, "b").PEM
	old := &profile.Profile{Domain: "zt.test", TrustDomain: "t", GatewayCA: a, OIDC: wire.OIDC{Issuer: "https://i", ClientID: "c", Scopes: []string{"openid"}}}
	same := old.Clone()
	same.OIDC.Scopes, same.OIDC.DeviceCode = []string{"openid", "groups"}, true // may change
	if got := Changes(old, same); len(got) != 0 {
		t.Errorf("%v", got)
	}
	now := old.Clone()
	now.GatewayCA, now.OIDC.Issuer = b, "https://evil\x1b[0m"
	want := []string{"authority: " + Fingerprint(a) + " -> " + Fingerprint(b), `issuer: https://i -> https://evil\x1b[0m`}
	if diff := cmp.Diff(want, Changes(old, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStateDoesNotPrint(t *testing.T) {
	t.Parallel()
	st := &State{Refresh: "s3cret", ProofKey: []byte("s3cret")}
	f := fault.New(fault.ExitFailed, "", "%v %+v %#v %s", st, *st, st, *st)
	if strings.Contains(f.What, "s3cret") || strings.Contains(f.What, "115") {
		t.Error(f.What)
	}
}
