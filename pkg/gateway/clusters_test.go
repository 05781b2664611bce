package gateway

import (
	"net/http"
	"testing"
	"time"
)

// TestAuthorityRenewed: a cluster whose authority's file says something else is
// reached by the new one; a file that only was written again, or that is no
// authority, ends nothing.
func TestAuthorityRenewed(t *testing.T) {
	t.Parallel()
	w := newWhole(t, time.Second, nil)
	right, wrong := string(w.upstream.caPEM()), string(w.idp.CAPEM())
	running := func() *Kube {
		w.clusters.mu.Lock()
		defer w.clusters.mu.Unlock()
		return w.clusters.running["prod"].kube
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	answers := func() bool {
		response, err := w.get(w.kubectl(), "/api/v1/namespaces/dev/pods")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	const stale = `zt_condition{condition="Stale",subject="cluster/prod"}`
	first := running()

	w.file("upstream.crt", right)
	if w.clusters.renewed(t.Context()) {
		t.Error("the same content is nothing new")
	}
	w.file("upstream.crt", "no authority")
	must(t, w.Reload(t.Context()))
	until("the fault is told", func() bool { return series(w.Gateway, stale) == "1" })
	if running() != first || !answers() {
		t.Error("the cluster ended for a file that is no authority")
	}
	w.file("upstream.crt", right)
	must(t, w.Reload(t.Context()))
	until("the fault is over", func() bool { return series(w.Gateway, stale) == "0" })
	if running() != first {
		t.Error("the cluster ended although its authority came back")
	}

	// By the watch alone.
	w.file("upstream.crt", wrong)
	until("the other authority is used", func() bool { return running() != first && !answers() })
	w.file("upstream.crt", right)
	until("the right authority is used again", answers)
}

// TestIssuerAuthorityChanged: it waits for the next start, and a condition says so.
func TestIssuerAuthorityChanged(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	w := newWhole(t, time.Second, func(_ *whole, c *Config) { c.Logger = log })
	const (
		restart = `zt_condition{condition="RestartNeeded",subject="issuer authority"}`
		stale   = `zt_condition{condition="Stale",subject="issuer authority"}`
	)
	for _, tt := range []struct{ content, restart, stale string }{
		{string(w.upstream.caPEM()), "1", "0"},
		{"none", "1", "1"},
		{string(w.idp.CAPEM()), "0", "0"},
	} {
		w.file("idp.crt", tt.content)
		if err := w.Reload(t.Context()); (err != nil) != (tt.stale == "1") {
			t.Error(err)
		}
		if got := series(w.Gateway, restart); got != tt.restart {
			t.Errorf("%.30q: RestartNeeded is %q, want %q; %s", tt.content, got, tt.restart, lines())
		}
		if got := series(w.Gateway, stale); got != tt.stale {
			t.Errorf("%.30q: Stale is %q, want %q", tt.content, got, tt.stale)
		}
	}
}
