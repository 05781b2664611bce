package gateway

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/metrics"
)

// pairFor makes a server certificate for name, from one time to another, and its
// key, as a certificate manager does.
func pairFor(t *testing.T, name string, from, to time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), DNSNames: []string{name}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// TestV202: a pair that nobody would accept is not put in the place of one that is
// accepted, the alarm says so until it is replaced, and at a start it is an error.
func TestV202(t *testing.T) {
	t.Parallel()
	const gw = "gw." + rigDomain
	now := time.Now()
	pair := func(t *testing.T, name string, from, to time.Duration) [2][]byte {
		cert, key := pairFor(t, name, now.Add(from), now.Add(to))
		return [2][]byte{cert, key}
	}
	for name, tt := range map[string]struct {
		make func(*testing.T) [2][]byte
		want string
	}{
		"wrong key": {func(t *testing.T) [2][]byte {
			return [2][]byte{pair(t, gw, 0, time.Hour)[0], pair(t, gw, 0, time.Hour)[1]}
		}, "private key does not match"},
		"expired":       {func(t *testing.T) [2][]byte { return pair(t, gw, -2*time.Hour, -time.Hour) }, "it has expired on"},
		"not yet valid": {func(t *testing.T) [2][]byte { return pair(t, gw, time.Hour, 2*time.Hour) }, "it is not valid before"},
		"wrong name": {func(t *testing.T) [2][]byte {
			return pair(t, "gw.elsewhere.example", 0, time.Hour)
		}, "it is for none of the names of this gateway: " + gw + ", login.example.com"},
		"a parent's wildcard": {func(t *testing.T) [2][]byte { return pair(t, "*.com", 0, time.Hour) }, "none of the names"},
		"half-written": {func(t *testing.T) [2][]byte {
			p := pair(t, gw, 0, time.Hour)
			return [2][]byte{p[0][:100], p[1]}
		}, "PEM"},
		"no key":  {func(t *testing.T) [2][]byte { return [2][]byte{pair(t, gw, 0, time.Hour)[0], nil} }, "no such file"},
		"nothing": {func(*testing.T) [2][]byte { return [2][]byte{{}, {}} }, "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
			write := func(pair [2][]byte) {
				for i, path := range []string{cert, key} {
					must(t, os.RemoveAll(path))
					if pair[i] != nil {
						must(t, os.WriteFile(path, pair[i], 0o600))
					}
				}
			}
			log, lines := logged()
			newFile := func() *certificateFile {
				return &certificateFile{certFile: cert, keyFile: key, names: []string{gw, "login.example.com"}, now: time.Now}
			}
			g := &Gateway{metrics: metrics.New(), log: log, clusters: &clusters{}, certificate: newFile()}
			shown := func() string {
				pair, err := g.certificate.get(nil)
				must(t, err)
				return string(pair.Leaf.Raw)
			}
			const alarm = `zt_condition{condition="Stale",subject="certificate"}`
			write(pair(t, gw, -time.Hour, time.Hour))
			g.files.add("certificate", g.certificate.load, cert, key)
			must(t, g.certificate.open(t.Context()))
			old := shown()

			write(tt.make(t))
			err := g.reloadFiles(t.Context(), true)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			} else if strings.Contains(err.Error()+lines(), "BEGIN") {
				t.Errorf("the error quotes the key: %v", err)
			}
			if shown() != old {
				t.Error("the old pair is gone")
			}
			if got := series(g, alarm); got != "1" || !strings.Contains(lines(), "not loaded, the old one stays") {
				t.Errorf("alarm %q, want 1; %s", got, lines())
			}
			if err := newFile().open(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("at a start: %v, want %q", err, tt.want)
			}

			write(pair(t, "login.example.com", -time.Minute, time.Hour)) // an alias does
			must(t, g.reloadFiles(t.Context(), true))
			if shown() == old {
				t.Error("the new pair is not shown")
			}
			if got := series(g, alarm); got != "0" {
				t.Errorf("alarm %q, want 0", got)
			}
		})
	}
}
