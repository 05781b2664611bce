package device

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/wire"
)

func testHome(t *testing.T) profile.Home {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "zt")
	h := profile.Home{Dir: dir, Run: filepath.Join(dir, "run")}
	if err := h.Prepare(); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	h := testHome(t)
	keys := make([]wire.DeviceID, 10)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := Open(h, "a.test")
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = k.ID
		})
	}
	wg.Wait()
	for _, id := range keys {
		if id == "" || id != keys[0] {
			t.Fatalf("several keys: %v", keys)
		}
	}
	other, err := Open(h, "b.test")
	if err != nil || other.ID == keys[0] {
		t.Errorf("another gateway sees the same device: %v", err)
	}
	fi, err := os.Stat(h.Key("a.test"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
}

func TestDamagedKeyIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	rsa := "-----BEGIN PRIVATE KEY-----\nMEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCA=\n-----END PRIVATE KEY-----\n"
	for name, content := range map[string]string{"empty": "", "garbage": "x", "another key": rsa} {
		h := testHome(t)
		if err := os.WriteFile(h.Key("a.test"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(h, "a.test")
		if f := fault.Of(err); f == nil || f.Exit != fault.ExitUntrusted || !strings.Contains(f.What, "not a P-256 private key") {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(h.Key("a.test")); err != nil || string(after) != content {
			t.Errorf("%s: the file was replaced", name)
		}
	}
}

// The request proves possession and names nobody.
func TestCSR(t *testing.T) {
	t.Parallel()
	k, err := Open(testHome(t), "a.test")
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.CSR()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(text))
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || req.CheckSignature() != nil {
		t.Fatal(err)
	}
	if got := req.Subject.String() + strings.Join(req.DNSNames, "") + strings.Join(req.EmailAddresses, ""); got != "" || len(req.URIs) > 0 {
		t.Errorf("names: %q %v", got, req.URIs)
	}
	jkt, err := evidence.Thumbprint(req.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k.Thumbprint, jkt); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
