package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const testDomain = "zt.test"

// clock is a settable time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)} }

func open(t *testing.T, dir string, c *clock) *Authorities {
	t.Helper()
	a, err := Open(dir, testDomain, testDomain, c.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keyFiles are all files under dir that hold something secret.
func keyFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".key") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEveryPurposeHasItsOwnKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, dir, newClock())
	if _, err := a.Cluster("prod"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Cluster("dev"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	files := keyFiles(t, dir)
	if want := 4 + 2 + 2; len(files) != want { // purposes, seal and token, clusters
		t.Errorf("%d key files, want %d: %q", len(files), want, files)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(data)]; ok {
			t.Errorf("%s and %s hold the same key", file, other)
		}
		seen[string(data)] = file
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", file, info.Mode().Perm())
		}
	}
}

func TestOpenAgainKeepsEverything(t *testing.T) {
	t.Parallel()
	dir, c := t.TempDir(), newClock()
	first := open(t, dir, c)
	prod, err := first.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.Seal([]byte("state"), "txn")
	if err != nil {
		t.Fatal(err)
	}
	c.advance(90 * 24 * time.Hour)
	second := open(t, dir, c)
	again, err := second.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := second.Open(sealed, "txn")
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Pin, UID, CA, Seal, Token string
	}
	got := facts{second.Pin(), string(again.UID), string(again.CAPEM), string(plain), second.TokenKeys().Keys[0].KeyID}
	want := facts{first.Pin(), string(prod.UID), string(prod.CAPEM), "state", first.TokenKeys().Keys[0].KeyID}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestV061: a key that others could read stops the start, and what is said of
// it holds none of the key's bytes.
func TestV061(t *testing.T) {
	t.Parallel()
	names := []string{"gateway.key", "trust.key", "kubeconfig.key", "uplink.key", "token.key", "seal.key", "clusters/prod/cluster.key", "clusters/prod/uid", "."}
	for _, name := range names {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602} {
			t.Run(name+" "+mode.String(), func(t *testing.T) {
				t.Parallel()
				dir, c := t.TempDir(), newClock()
				a := open(t, dir, c)
				if _, err := a.Cluster("prod"); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "ca", name)
				secret, _ := os.ReadFile(path)
				if name == "." {
					mode |= 0o700
				}
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
				a, err := Open(dir, testDomain, testDomain, c.Now)
				if err == nil && strings.HasPrefix(name, "clusters/") {
					_, err = a.Cluster("prod")
				}
				var loose *LooseError
				if !errors.As(err, &loose) {
					t.Fatalf("open with %s of mode %04o: %v, want a LooseError", name, mode, err)
				}
				for line := range strings.Lines(string(secret)) {
					if line = strings.TrimSpace(line); len(line) > 16 && strings.Contains(err.Error(), line) {
						t.Errorf("the error holds a line of the key file: %v", err)
					}
				}
			})
		}
	}
}

func TestDamagedKeysStopTheStart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"certificate without its key", func(dir string) error { return os.Remove(filepath.Join(dir, "gateway.key")) }, "restore the key"},
		{"another's key", func(dir string) error {
			return os.Rename(filepath.Join(dir, "uplink.key"), filepath.Join(dir, "gateway.key"))
		}, "not of the key beside it"},
		{"certificate of another purpose", func(dir string) error {
			for _, ext := range []string{".key", ".crt"} {
				if err := os.Rename(filepath.Join(dir, "trust"+ext), filepath.Join(dir, "gateway"+ext)); err != nil {
					return err
				}
			}
			return nil
		}, "not an authority for this purpose"},
		{"cut key", func(dir string) error { return os.Truncate(filepath.Join(dir, "trust.key"), 60) }, "no PEM block"},
		{"empty seal key", func(dir string) error { return os.Truncate(filepath.Join(dir, "seal.key"), 0) }, "no PEM block"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, c := t.TempDir(), newClock()
			open(t, dir, c)
			if err := tt.damage(filepath.Join(dir, "ca")); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, testDomain, testDomain, c.Now); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("open: %v, want %q", err, tt.want)
			}
		})
	}
}

// A crash between key and certificate leaves the key alone: the pin must not
// change by it.
func TestCrashBetweenKeyAndCertificate(t *testing.T) {
	t.Parallel()
	dir, c := t.TempDir(), newClock()
	pin := open(t, dir, c).Pin()
	if err := os.Remove(filepath.Join(dir, "ca", "gateway.crt")); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir, c).Pin(); got != pin {
		t.Errorf("pin %s, want %s", got, pin)
	}
}

func TestServerLeafRotates(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := open(t, t.TempDir(), c)
	get := a.ServerLeaf("gw.zt.test", "127.0.0.1")
	leaf := func() *tls.Certificate {
		t.Helper()
		cert, err := get(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"gw.zt.test", "127.0.0.1"} {
			if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Roots(trust.Gateway), CurrentTime: c.Now()}); err != nil {
				t.Fatalf("leaf for %s: %v", name, err)
			}
		}
		return cert
	}
	first := leaf()
	if got, want := c.Now().Sub(first.Leaf.NotBefore), serverBackdate; got != want {
		t.Errorf("backdated by %v, want %v", got, want)
	}
	if len(first.Certificate) != 2 || string(first.Certificate[1]) != string(a.Certificate(trust.Gateway).Raw) {
		t.Error("the chain does not end with the authority, which laptops pin")
	}
	c.advance(23 * time.Hour)
	if leaf() != first {
		t.Error("a new leaf before half life")
	}
	c.advance(2 * time.Hour)
	second := leaf()
	if second == first {
		t.Error("the same leaf after half life")
	}
	c.advance(-2 * time.Hour) // the clock goes back before the making
	if leaf() == second {
		t.Error("a leaf that is not valid yet")
	}
}

func TestClusterAuthorityIsGoodForItsNamesAlone(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := open(t, t.TempDir(), c)
	prod, err := a.Cluster("prod")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(prod.CAPEM)
	tests := []struct {
		name string
		want bool
	}{
		{"prod.zt.test", true},
		{"prod.direct.zt.test", true},
		{"dev.zt.test", false},
		{"gw.zt.test", false},
		{"prod.example.com", false},
		{"control", false},
		{"127.0.0.1", false},
		{"::1", false},
	}
	for _, tt := range tests {
		// The key itself is turned against the constraint: whoever stole it
		// can sign anything.
		cert, err := prod.authority.serverLeaf([]string{tt.name}, c.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, err = cert.Leaf.Verify(x509.VerifyOptions{DNSName: tt.name, Roots: roots, CurrentTime: c.Now()})
		if (err == nil) != tt.want {
			t.Errorf("%s: %v, want good: %v", tt.name, err, tt.want)
		}
	}
}

func TestClusterNameIsNoPath(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), newClock())
	for _, name := range []wire.ClusterName{"", ".", "..", "../x", "a/b", "A", "a.b", "-a", "a-", wire.ClusterName(strings.Repeat("a", 64))} {
		if _, err := a.Cluster(name); err == nil {
			t.Errorf("cluster %q was accepted", name)
		}
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), newClock())
	stranger := open(t, t.TempDir(), newClock())
	sealed, err := a.Seal([]byte("plain"), "txn")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := a.Seal([]byte("plain"), "txn"); again == sealed {
		t.Error("sealing twice gives the same")
	}
	if plain, err := a.Open(sealed, "txn"); err != nil || string(plain) != "plain" {
		t.Errorf("open: %q, %v", plain, err)
	}
	flipped := []byte(sealed)
	flipped[len(flipped)/2] ^= 1
	tests := map[string]struct {
		a       *Authorities
		sealed  string
		purpose string
	}{
		"other purpose": {a, sealed, "nonce"},
		"other gateway": {stranger, sealed, "txn"},
		"flipped bit":   {a, string(flipped), "txn"},
		"cut":           {a, sealed[:len(sealed)-4], "txn"},
		"empty":         {a, "", "txn"},
		"line break":    {a, sealed[:10] + "\n" + sealed[10:], "txn"},
		"padding":       {a, sealed + "=", "txn"},
	}
	for name, tt := range tests {
		if _, err := tt.a.Open(tt.sealed, tt.purpose); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v, want ErrSealed", name, err)
		}
	}
}
