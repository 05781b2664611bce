package execcred

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	clientauth "k8s.io/client-go/pkg/apis/clientauthentication/v1"

	"github.com/kube-zt/zt/pkg/client/fault"
)

var (
	pinnedCA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("pinned")}))
	otherCA  = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("other")}))
)

// A kubeconfig from an untrusted source may name a profile and a cluster that
// exist and yet point kubectl somewhere else.
func TestTokenLeavesOnlyForTheClusterItIsFor(t *testing.T) {
	t.Parallel()
	expected := Expected{Profile: "zt.test", Host: "prod.zt.test", CA: pinnedCA, Ports: []int{40001}}
	good := clientauth.Cluster{
		Server: "https://prod.zt.test", CertificateAuthorityData: []byte(pinnedCA), ProxyURL: "http://zt.test:s3cret@127.0.0.1:40001",
	}
	for _, tc := range []struct {
		name string
		bend func(*clientauth.Cluster)
		says string
	}{
		{"as written", func(*clientauth.Cluster) {}, ""},
		{"port 443", func(c *clientauth.Cluster) { c.Server += ":443" }, ""},
		{"HTTPS_PROXY instead of proxy-url", func(c *clientauth.Cluster) { c.ProxyURL = "" }, ""},
		{"same name given twice", func(c *clientauth.Cluster) { c.TLSServerName = "prod.zt.test" }, ""},
		{"another server", func(c *clientauth.Cluster) { c.Server = "https://evil.test" }, "no token leaves"},
		{"another cluster", func(c *clientauth.Cluster) { c.Server = "https://dev.zt.test" }, "no token leaves"},
		{"name as prefix", func(c *clientauth.Cluster) { c.Server = "https://prod.zt.test.evil.test" }, "no token leaves"},
		{"name as user", func(c *clientauth.Cluster) { c.Server = "https://prod.zt.test@evil.test" }, "no token leaves"},
		{"plain http", func(c *clientauth.Cluster) { c.Server = "http://prod.zt.test" }, "no token leaves"},
		{"another port", func(c *clientauth.Cluster) { c.Server += ":6443" }, "no token leaves"},
		{"unverified", func(c *clientauth.Cluster) { c.InsecureSkipTLSVerify = true }, "does not verify"},
		{"another TLS name", func(c *clientauth.Cluster) { c.TLSServerName = "evil.test" }, "does not verify"},
		{"another CA", func(c *clientauth.Cluster) { c.CertificateAuthorityData = []byte(otherCA) }, "another authority"},
		{"a second CA", func(c *clientauth.Cluster) { c.CertificateAuthorityData = []byte(pinnedCA + otherCA) }, "another authority"},
		{"no CA", func(c *clientauth.Cluster) { c.CertificateAuthorityData = nil }, "another authority"},
		{"stale port", func(c *clientauth.Cluster) { c.ProxyURL = "http://zt.test:s3cret@127.0.0.1:40002" }, "port 40002 is stale"},
		{"foreign proxy", func(c *clientauth.Cluster) { c.ProxyURL = "http://zt.test:s3cret@10.0.0.1:40001" }, "not zt's tunnel"},
		{"proxy by name", func(c *clientauth.Cluster) { c.ProxyURL = "http://zt.test:s3cret@localhost.evil.test:40001" }, "not zt's tunnel"},
		{"another profile's proxy", func(c *clientauth.Cluster) { c.ProxyURL = "http://x.test:s3cret@127.0.0.1:40001" }, "not zt's tunnel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cluster := good
			tc.bend(&cluster)
			info, err := Parse(execInfo(t, &cluster))
			if err != nil {
				t.Fatal(err)
			}
			err = info.Check(expected)
			if tc.says == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			f := fault.Of(err)
			if f == nil || !strings.Contains(f.What, tc.says) || len(f.Hints) == 0 {
				t.Fatalf("%v, want a refusal that says %q", err, tc.says)
			}
			if strings.Contains(f.What, "s3cret") {
				t.Errorf("the proxy's secret is in the message: %s", f.What)
			}
		})
	}

	t.Run("server not told", func(t *testing.T) {
		t.Parallel()
		info, err := Parse(execInfo(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := info.Check(expected); err == nil {
			t.Error("a caller that hides its server got a token")
		}
	})
	t.Run("by hand", func(t *testing.T) {
		t.Parallel()
		info, err := Parse("")
		if err != nil || info.Check(expected) != nil {
			t.Error("without client-go there is no server to check")
		}
	})
}

func TestParseRefusesOtherVersions(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"{", `{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential"}`,
		`{"apiVersion":"client.authentication.k8s.io/v1","kind":"Other"}`, "null",
	} {
		if _, err := Parse(raw); err == nil {
			t.Errorf("%s: accepted", raw)
		}
	}
}

// The document is read back with client-go's own type.
func TestRender(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 4, 5, 6, 0, time.FixedZone("x", 3600))
	b, err := Render("tok.en", at)
	if err != nil {
		t.Fatal(err)
	}
	var got clientauth.ExecCredential
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.APIVersion != clientauth.SchemeGroupVersion.String() || got.Kind != "ExecCredential" {
		t.Errorf("%s %s", got.APIVersion, got.Kind)
	}
	if diff := cmp.Diff("tok.en", got.Status.Token); diff != "" || !got.Status.ExpirationTimestamp.Time.Equal(at) {
		t.Errorf("%s %v", diff, got.Status.ExpirationTimestamp)
	}
}

func execInfo(t *testing.T, c *clientauth.Cluster) string {
	t.Helper()
	doc := clientauth.ExecCredential{Spec: clientauth.ExecCredentialSpec{Cluster: c, Interactive: true}}
	doc.APIVersion, doc.Kind = APIVersion, kind
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if c != nil && c.CertificateAuthorityData != nil && !strings.Contains(string(b), base64.StdEncoding.EncodeToString(c.CertificateAuthorityData)) {
		t.Fatal("client-go encodes the CA in another way")
	}
	return string(b)
}
