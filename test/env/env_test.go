package env_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kube-zt/zt/test/env"
)

func TestMain(m *testing.M) {
	code := env.Main(m)
	// A SPDY connection whose socket was gone first takes a second to say so to
	// nobody.
	if err := goleak.Find(goleak.IgnoreTopFunction("github.com/moby/spdystream.(*Connection).shutdown")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// TestStart has etcd and the API server alone.
func TestStart(t *testing.T) {
	t.Parallel()
	cp, err := env.Start(t.Context(), env.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = cp.Stop()
		}
	})

	token, err := cp.ServiceAccountToken(t.Context(), "zt", "probe", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	account := clientFor(t, &rest.Config{Host: cp.URL, TLSClientConfig: rest.TLSClientConfig{CAData: cp.CAPEM}, BearerToken: token})
	t.Run("RBAC decides", func(t *testing.T) {
		_, err := account.CoreV1().Pods("zt").List(t.Context(), metav1.ListOptions{})
		want := `pods is forbidden: User "system:serviceaccount:zt:probe" cannot list resource "pods" in API group "" in the namespace "zt"`
		if !apierrors.IsForbidden(err) || err.Error() != want {
			t.Errorf("list pods: %v, want %s", err, want)
		}
	})
	t.Run("the audit log has it at once", func(t *testing.T) {
		events, err := cp.Audit(func(e *auditv1.Event) bool { return e.User.Username == "system:serviceaccount:zt:probe" })
		if err != nil || len(events) == 0 || events[0].ResponseStatus.Code != http.StatusForbidden {
			t.Errorf("events %v, %v", events, err)
		}
	})
	t.Run("anonymous requests are known as such", func(t *testing.T) {
		_, err := clientFor(t, &rest.Config{Host: cp.URL, TLSClientConfig: rest.TLSClientConfig{CAData: cp.CAPEM}}).
			CoreV1().Pods("zt").List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:anonymous") {
			t.Errorf("list pods: %v, want forbidden for system:anonymous", err)
		}
	})
	t.Run("constrained impersonation is on", func(t *testing.T) {
		metrics, err := cp.Client().Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
		if err != nil || !strings.Contains(string(metrics), `kubernetes_feature_enabled{name="ConstrainedImpersonation",stage="BETA"} 1`) {
			t.Errorf("the feature is not on (%v)", err)
		}
	})
	t.Run("a restart keeps address, keys and data", func(t *testing.T) {
		if err := cp.RestartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := account.CoreV1().Pods("zt").List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("list pods with the token from before: %v, want forbidden", err)
		}
	})
	t.Run("a killed API server refuses connections", func(t *testing.T) {
		cp.KillAPIServer()
		if conn, err := http.Get(cp.URL); err == nil {
			_ = conn.Body.Close()
			t.Error("somebody answers")
		}
		if err := cp.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("stop removes the directory", func(t *testing.T) {
		stopped = true
		if err := cp.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(cp.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("stat %s: %v", cp.Dir, err)
		}
	})
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options env.Options
		want    string
	}{
		{"a flag that the API server does not know", env.Options{APIServerArgs: []string{"--no-such-flag"}}, "unknown flag: --no-such-flag"},
		{"a directory with something in it", env.Options{Dir: notEmpty(t)}, "is not empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cp, err := env.Start(t.Context(), test.options)
			if cp != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("start: %v, want …%s…", err, test.want)
			}
		})
	}
}

// TestFull has all parts.
func TestFull(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	t.Run("two nodes side by side", func(t *testing.T) {
		nodes, _, err := cp.Kubectl(t.Context(), "get", "nodes", "--no-headers")
		if err != nil || strings.Count(nodes, " Ready ") != 2 {
			t.Errorf("nodes:\n%s%v", nodes, err)
		}
	})
	t.Run("simulated pods run", func(t *testing.T) {
		t.Parallel()
		begin := time.Now()
		if err := cp.CreatePods(t.Context(), "many", 50); err != nil {
			t.Fatal(err)
		}
		t.Logf("50 pods after %s", time.Since(begin))
	})
	t.Run("a deployment's pods run on the stream node", func(t *testing.T) {
		t.Parallel()
		if err := cp.Apply(t.Context(), deployment); err != nil {
			t.Fatal(err)
		}
		if _, _, err := cp.Kubectl(t.Context(), "rollout", "status", "-n", "default", "deployment/web", "--timeout=60s"); err != nil {
			t.Error(err)
		}
	})
	t.Run("the view role is filled", func(t *testing.T) {
		t.Parallel()
		role, err := cp.Client().RbacV1().ClusterRoles().Get(t.Context(), "view", metav1.GetOptions{})
		if err != nil || len(role.Rules) == 0 {
			t.Errorf("rules %v, %v", role.Rules, err)
		}
	})
	t.Run("a namespace goes", func(t *testing.T) {
		t.Parallel()
		for _, verb := range []string{"create", "delete"} {
			if _, _, err := cp.Kubectl(t.Context(), verb, "namespace", "short-lived"); err != nil {
				t.Error(err)
			}
		}
	})
	for _, program := range []string{"kubectl", "kubectl-1.32", "kubectl-1.27"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			stdout, _, err := cp.Run(t.Context(), env.Command{Program: program}, "get", "namespace", corev1.NamespaceDefault, "-o", "name")
			if err != nil || stdout != "namespace/default\n" {
				t.Errorf("%q, %v", stdout, err)
			}
		})
	}
}

// TestRestart sees all parts go on after the API server was away.
func TestRestart(t *testing.T) {
	t.Parallel()
	cp, err := env.Start(t.Context(), env.Options{ControllerManager: true, StreamNode: true, Kwok: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	cp.KillAPIServer()
	if err := cp.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cp.CreatePods(t.Context(), "after", 3); err != nil { // controller manager and kwok
		t.Error(err)
	}
	if err := cp.Apply(t.Context(), deployment); err != nil {
		t.Error(err)
	}
	if _, _, err := cp.Kubectl(t.Context(), "rollout", "status", "-n", "default", "deployment/web", "--timeout=60s"); err != nil {
		t.Error(err)
	}
	if stdout, _, err := cp.Kubectl(t.Context(), "exec", "-n", "default", "deployment/web", "--", "echo", "here"); err != nil || stdout != "here\n" {
		t.Errorf("exec: %q, %v", stdout, err)
	}
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: registry.example.com/web}]}
`

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := kubernetes.NewForConfigAndClient(config, transport)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func notEmpty(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
