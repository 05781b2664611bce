package e2e

import (
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// A person whose kubeconfig is there and who is not logged in types kubectl: the
// page opens once and the answer comes (F1).
func TestKubectlAloneLogsIn(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	if res := alice.ZT(t.Context(), "agent", "--stop"); res.Code != 0 { // the session is gone with it
		t.Fatalf("agent --stop: %v", res)
	}
	opens := alice.BrowserOpens()
	text, err := onScreen(t, alice, "kubectl", "get", "pods")
	if err != nil {
		t.Errorf("kubectl get pods: %v\n%s", err, text)
	}
	if !strings.Contains(text, "No resources found in default namespace") && !strings.Contains(text, "NAME ") {
		t.Errorf("no pods were printed:\n%s", text)
	}
	if n := alice.BrowserOpens() - opens; n != 1 {
		t.Errorf("the page was opened %d times, want once", n)
	}
}

// On a machine that only knows the gateway, connect is the one step (F48).
func TestConnectLogsIn(t *testing.T) {
	t.Parallel()
	s := world(t)
	alice := laptop(t, s, "alice")
	if res := alice.ZT(t.Context(), "trust", "--yes", s.LoginURL); res.Code != 0 {
		t.Fatalf("trust: %v", res)
	}
	if n := alice.BrowserOpens(); n != 0 {
		t.Fatalf("trust opened the page %d times", n)
	}
	if text, err := onScreen(t, alice, "kubectl", "zt", "connect", stack.Cluster); err != nil {
		t.Fatalf("connect: %v\n%s", err, text)
	}
	if n := alice.BrowserOpens(); n != 1 {
		t.Errorf("the page was opened %d times, want once", n)
	}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("get pods: %v", res)
	}
}

// onScreen runs a program as a person at a terminal does, and returns what he sees.
func onScreen(t *testing.T, l *stack.Laptop, program string, args ...string) (string, error) {
	t.Helper()
	cmd := l.Command(t.Context(), program, args...)
	screen, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	seen, _ := io.ReadAll(screen) // ends with EIO when nobody holds the other side
	return string(seen), cmd.Wait()
}
