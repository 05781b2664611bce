package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// The two-device example, word for word: an employee on a personal device reads
// pods in the namespace default and nothing else; an administrator on a corporate
// device may do everything.
func TestTwoDeviceExample(t *testing.T) {
	s := world(t)
	alice := connected(t, s, "alice")

	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("alice gets pods: %v", res)
	}
	res := alice.Kubectl(t.Context(), "get", "services")
	if res.Code != 1 {
		t.Errorf("alice gets services: want exit 1, got %v", res)
	}
	wantIn(t, res.Stderr, `Error from server (Forbidden): services is forbidden: User "zt:alice@example.com" cannot list resource "services" in API group "" in the namespace "default"`)

	carol := admin(t, s)
	for _, args := range [][]string{{"get", "services"}, {"get", "nodes"}, {"get", "pods", "-A"}} {
		if res := carol.Kubectl(t.Context(), args...); res.Code != 0 {
			t.Errorf("carol %v: %v", args, res)
		}
	}
}

// Kubernetes sees the person and the roles, not the gateway.
func TestWhoAmI(t *testing.T) {
	s := world(t)
	carol := admin(t, s)
	res := carol.Kubectl(t.Context(), "auth", "whoami", "-o", "json")
	if res.Code != 0 {
		t.Fatalf("whoami: %v", res)
	}
	for _, want := range []string{`"zt:carol@example.com"`, `"zt:all-admins-corporate-device"`, `"kube-zt.io/device"`, `"kube-zt.io/session"`, `"kube-zt.io/client-ip"`} {
		wantIn(t, res.Stdout, want)
	}
	for _, no := range []string{"zt-impersonate", "system:masters"} {
		if strings.Contains(res.Stdout, no) {
			t.Errorf("%s reached the cluster: %s", no, res.Stdout)
		}
	}
}

// One person on two devices holds two roles, and Kubernetes is told of each the one
// that belongs to it (F15).
func TestRoleFollowsTheDevice(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	if err := s.IdP.SetUserGroups("alice", "employees", "all-admins"); err != nil {
		t.Fatal(err)
	}
	personal, corporate := connected(t, s, "alice"), laptop(t, s, "alice")
	if err := corporate.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := corporate.ApproveDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := corporate.ZT(t.Context(), "connect", stack.Cluster); res.Code != 0 {
		t.Fatalf("connect: %v", res)
	}
	devices := map[string]bool{}
	for role, l := range map[string]*stack.Laptop{"any-employee-personal-device": personal, "all-admins-corporate-device": corporate} {
		res := l.Kubectl(t.Context(), "auth", "whoami", "-o", "json")
		var review authenticationv1.SelfSubjectReview
		if err := json.Unmarshal([]byte(res.Stdout), &review); err != nil {
			t.Fatalf("whoami: %v: %v", err, res)
		}
		who := review.Status.UserInfo
		if want := []string{"zt:" + role, "system:authenticated"}; who.Username != "zt:alice@example.com" || !slices.Equal(who.Groups, want) {
			t.Errorf("on the device of %s: %s in %v", role, who.Username, who.Groups)
		}
		for _, id := range who.Extra["kube-zt.io/device"] {
			devices[id] = true
		}
	}
	if len(devices) != 2 {
		t.Errorf("the devices are %v, want two", devices)
	}
}

// Older kubectls work as the newest does.
func TestOldKubectls(t *testing.T) {
	s := world(t)
	alice := connected(t, s, "alice")
	for _, kubectl := range []string{"kubectl-1.27", "kubectl-1.32", "kubectl"} {
		t.Run(kubectl, func(t *testing.T) {
			if res := alice.Run(t.Context(), kubectl, "get", "pods"); res.Code != 0 {
				t.Errorf("get pods: %v", res)
			}
			res := alice.Run(t.Context(), kubectl, "get", "services")
			wantIn(t, res.Stderr, "services is forbidden")
		})
	}
}

// A device that nobody approved holds no administrator's role, whoever logs in,
// and the refusal says what to do.
func TestUnapprovedDevice(t *testing.T) {
	s := world(t)
	carol := laptop(t, s, "carol")
	if err := carol.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	res := carol.ZT(t.Context(), "connect", stack.Cluster)
	if res.Code == 0 {
		t.Fatalf("connected from an unapproved device: %v", res)
	}
	wantIn(t, res.Stderr, "hint:")
	if _, err := os.Stat(carol.Kubeconfig); err == nil {
		t.Error("a kubeconfig was written all the same")
	}
}

func chmodTree(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 || d.Type()&os.ModeNamedPipe != 0 {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		if filepath.Base(path) == "browser" {
			return nil
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The person's own kubeconfig is not touched, and both may be used together.
func TestOwnKubeconfigUntouched(t *testing.T) {
	s := world(t)
	l := laptop(t, s, "alice")
	mine := filepath.Join(l.Home, ".kube", "config")
	if err := os.MkdirAll(filepath.Dir(mine), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(s.ControlPlane.AdminKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, before, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Env = []string{"KUBECONFIG=" + l.Kubeconfig + ":" + mine}
	if err := l.Connect(t.Context(), stack.Cluster); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(mine)
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Error("~/.kube/config was changed")
	}
	if info, err := os.Stat(l.Kubeconfig); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("~/.kube/zt: %v, %v", info, err)
	}
	res := l.Kubectl(t.Context(), "config", "get-contexts", "-o", "name")
	wantIn(t, res.Stdout, stack.Cluster+"\n")
	if res := l.Kubectl(t.Context(), "--context", stack.Cluster, "get", "pods"); res.Code != 0 {
		t.Errorf("get pods by both files: %v", res)
	}
	// Switching to and fro is kubectl's own business, and lasts (F53).
	for _, context := range append(strings.Fields(res.Stdout), stack.Cluster) {
		if res := l.Kubectl(t.Context(), "config", "use-context", context); res.Code != 0 {
			t.Errorf("use-context %s: %v", context, res)
		}
		if res := l.Kubectl(t.Context(), "config", "current-context"); res.Stdout != context+"\n" {
			t.Errorf("current context %q, want %q", res.Stdout, context)
		}
	}
	if n := len(strings.Fields(res.Stdout)); n < 2 {
		t.Errorf("%d contexts, want zt's and the person's own", n)
	}
}
