package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
)

// writePair writes a server certificate and its key, as a certificate manager does.
func writePair(t *testing.T, cert, key string) (certPEM, keyPEM []byte) {
	t.Helper()
	authorities, err := ca.Open(t.TempDir(), rigDomain, rigDomain, time.Now)
	must(t, err)
	leaf, err := authorities.ServerLeaf("gw." + rigDomain)(nil)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	must(t, err)
	certPEM, keyPEM = certificatePEM(leaf.Leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	must(t, os.WriteFile(cert, certPEM, 0o600))
	must(t, os.WriteFile(key, keyPEM, 0o600))
	return certPEM, keyPEM
}

func TestV202(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePair(t, cert, key)
	file, err := openCertificateFile(cert, key)
	must(t, err)
	g := &Gateway{metrics: metrics.New(), log: slog.New(slog.DiscardHandler)}
	g.files.add("certificate", file.load, cert, key)
	shown := func() string {
		pair, err := file.get(nil)
		must(t, err)
		return string(pair.Leaf.Raw)
	}
	const alarm = `zt_condition{condition="Stale",subject="certificate"}`
	old := shown()

	// A new certificate beside the old key.
	oldKey, err := os.ReadFile(key)
	must(t, err)
	_, newKey := writePair(t, cert, key)
	must(t, os.WriteFile(key, oldKey, 0o600))
	if err := g.reloadFiles(true); err == nil {
		t.Error("the wrong key was accepted")
	} else if strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("the error quotes the key: %v", err)
	}
	if shown() != old {
		t.Error("the old pair is gone")
	}
	if got := series(g, alarm); got != "1" {
		t.Errorf("alarm %q, want 1", got)
	}

	must(t, os.WriteFile(key, newKey, 0o600))
	must(t, g.reloadFiles(false))
	if shown() == old {
		t.Error("the new pair is not shown")
	}
	if got := series(g, alarm); got != "0" {
		t.Errorf("alarm %q, want 0", got)
	}

	// Half-written files are no pair either.
	now := shown()
	must(t, os.Truncate(cert, 100))
	if err := g.reloadFiles(false); err == nil || shown() != now {
		t.Errorf("a cut certificate: %v", err)
	}
	must(t, os.Remove(key))
	if err := g.reloadFiles(false); err == nil || shown() != now {
		t.Errorf("no key: %v", err)
	}
}
