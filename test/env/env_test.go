package env_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/test/env"
)

func TestMain(m *testing.M) { os.Exit(env.Main(m)) }

func TestLight(t *testing.T) {
	begin := time.Now()
	cp, err := env.Start(t.Context(), env.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { t.Log(cp.Stop()) })
	t.Logf("started after %s", time.Since(begin))
	token, err := cp.ServiceAccountToken(t.Context(), "zt", "probe", time.Hour)
	if err != nil || strings.Count(token, ".") != 2 {
		t.Fatalf("token %q, %v", token, err)
	}
	begin = time.Now()
	if err := cp.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("restarted after %s", time.Since(begin))
}

func TestFull(t *testing.T) {
	begin := time.Now()
	cp := env.Shared(t)
	t.Logf("started after %s", time.Since(begin))
	t.Log(cp.Kubectl(t.Context(), "get", "nodes", "-o", "wide"))
	t.Log(cp.Kubectl(t.Context(), "run", "x", "--image=x", "--", "sh", "-c", "echo hi; cat"))
	t.Log(cp.Kubectl(t.Context(), "wait", "pod/x", "--for=condition=Ready"))
	t.Log(cp.Kubectl(t.Context(), "logs", "x"))
	t.Log(cp.Kubectl(t.Context(), "get", "pods", "-A", "-o", "wide"))
	t.Log(cp.Kubectl(t.Context(), "exec", "x", "--", "sh", "-c", "echo hello; exit 7"))
}
