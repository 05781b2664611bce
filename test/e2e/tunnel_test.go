package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// The old habit goes on working: a port without a secret, for the person's own
// processes, and https_proxy in front of kubectl (F39).
func TestOpenTunnel(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	port := freePort(t)
	if res := alice.ZT(t.Context(), "tunnel", "--open", "--port", port); res.Code != 0 {
		t.Fatalf("tunnel --open: %v", res)
	}
	plain := withoutProxy(t, alice)
	alice.Env = []string{"KUBECONFIG=" + plain}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code == 0 {
		t.Errorf("without a proxy the cluster was reached: %v", res)
	}
	alice.Env = []string{"KUBECONFIG=" + plain, "https_proxy=http://localhost:" + port}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("https_proxy=http://localhost:%s kubectl get pods: %v", port, res)
	}
	if res := alice.ZT(t.Context(), "tunnel", "--close"); res.Code != 0 {
		t.Errorf("tunnel --close: %v", res)
	}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code == 0 {
		t.Errorf("the closed port still serves: %v", res)
	}
}

// `tunnel --env` gives a shell the tunnel by a URL with the secret in it.
func TestTunnelEnv(t *testing.T) {
	t.Parallel()
	s := world(t)
	alice := connected(t, s, "alice")
	script := `eval "$(kubectl-zt tunnel --env)" && kubectl --kubeconfig ` + withoutProxy(t, alice) + ` get pods`
	if res := alice.Run(t.Context(), "/bin/sh", "-c", script); res.Code != 0 {
		t.Errorf("%s: %v", script, res)
	}
}

// withoutProxy is the laptop's kubeconfig as people had it before: no proxy-url.
func withoutProxy(t *testing.T, l *stack.Laptop) string {
	t.Helper()
	raw, err := os.ReadFile(l.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !strings.Contains(line, "proxy-url:") {
			kept.WriteString(line)
		}
	}
	plain := filepath.Join(l.Home, "plain")
	if err := os.WriteFile(plain, []byte(kept.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return plain
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}
