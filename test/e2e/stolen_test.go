package e2e

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// What lies on a laptop is of no use on another one, a live token that was
// captured in its memory included (F59).
func TestStolenFiles(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	token := tokenOf(t, alice, stack.Cluster)

	thief := laptop(t, s, "")
	copyFiles(t, alice.Home, thief.Home)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if res := thief.ZT(ctx, "clusters"); res.Code == 0 {
		t.Errorf("the thief is logged in: %v", res)
	}

	// Alice's port is hers. The best try is a tunnel that one may have: an
	// administrator's, and that of another laptop of alice's, the same person's.
	for reason, l := range map[wire.Reason]*stack.Laptop{
		wire.ReasonIdentityMismatch: admin(t, s),
		wire.ReasonBindingMismatch:  connected(t, s, "alice"),
	} {
		stolen := withToken(t, alice.Kubeconfig, l, token)
		if res := l.Kubectl(t.Context(), "--kubeconfig", stolen, "get", "pods"); res.Code == 0 {
			t.Errorf("alice's token in another tunnel (%s): %v", reason, res)
		}
		log, err := os.ReadFile(s.AuditLog())
		if err != nil {
			t.Fatal(err)
		}
		wantIn(t, string(log), `"reason":"`+string(reason)+`"`)
		if res := l.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
			t.Errorf("that tunnel's own person goes on: %v", res)
		}
	}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("alice goes on: %v", res)
	}
}

// After a logout nothing that was taken before it opens anything: files, port or
// token (V076).
func TestV076LogoutLeavesNothing(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice, other := connected(t, s, "alice"), connected(t, s, "alice")
	token := tokenOf(t, alice, stack.Cluster)
	before := t.TempDir()
	copyFiles(t, alice.Home, before)
	stolen := withToken(t, alice.Kubeconfig, other, token)
	port := proxyOf(t, alice).Host

	if res := alice.ZT(t.Context(), "logout"); res.Code != 0 {
		t.Fatalf("logout: %v", res)
	}
	if _, err := os.Stat(alice.Kubeconfig); !os.IsNotExist(err) {
		t.Errorf("the kubeconfig is still there: %v", err)
	}
	eventually(t, 10*time.Second, "the port is closed", func() bool {
		conn, err := net.DialTimeout("tcp", port, time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})

	// On the very same machine, with all that was there before.
	copyFiles(t, before, alice.Home)
	alice.SetUser("")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if res := alice.Kubectl(ctx, "get", "pods"); res.Code == 0 {
		t.Errorf("the old files serve: %v", res)
	}
	if res := other.Kubectl(t.Context(), "--kubeconfig", stolen, "get", "pods"); res.Code == 0 {
		t.Errorf("the old token serves: %v", res)
	}
	if res := other.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("her other laptop: %v", res)
	}
}

// copyFiles copies what zt and kubectl keep in a home.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, dir := range []string{".kube", ".config"} {
		target := filepath.Join(to, dir)
		if err := os.RemoveAll(target); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(target, os.DirFS(filepath.Join(from, dir))); err != nil {
			t.Fatal(err)
		}
		chmodTree(t, target)
	}
}

// withToken is a copy of a kubeconfig in l's home with l's own tunnel and with a
// token in the place of the exec plugin.
func withToken(t *testing.T, kubeconfig string, l *stack.Laptop, token string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.CurrentContext = stack.Cluster
	current := config.Contexts[stack.Cluster]
	config.Clusters[current.Cluster].ProxyURL = proxyOf(t, l).String()
	config.AuthInfos[current.AuthInfo] = &clientcmdapi.AuthInfo{Token: token}
	path := filepath.Join(l.Home, "stolen")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// proxyOf is the tunnel that a laptop's kubeconfig names.
func proxyOf(t *testing.T, l *stack.Laptop) *url.URL {
	t.Helper()
	config, err := clientcmd.LoadFromFile(l.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := url.Parse(config.Clusters[config.Contexts[stack.Cluster].Cluster].ProxyURL)
	if err != nil || !strings.HasPrefix(proxy.Host, "127.0.0.1:") {
		t.Fatalf("proxy %v: %v", proxy, err)
	}
	return proxy
}
