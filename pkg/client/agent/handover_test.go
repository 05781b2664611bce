package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/test/idp"
)

// expire makes the certificate end by both clocks: whatever comes next renews.
func (r *rig) expire(after time.Duration) {
	r.offset.Store(int64(after))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = after })
}

// While the sessions are in two hands neither spends the refresh token, and when
// the handover has failed the old agent goes on with a good one.
func TestHandoverLeavesOneWriterOfTheRefreshToken(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, func(s *gatewaytest.State) { s.CertLife = time.Minute })
	dir := t.TempDir()
	begun, heir := filepath.Join(dir, "begun"), filepath.Join(dir, "kubectl-zt")
	// An heir that takes all there is and never says so.
	if err := os.WriteFile(heir, []byte("#!/bin/sh\necho $$ > "+begun+".new\nmv "+begun+".new "+begun+"\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := r.client()
	c.Version, c.Binary = "v9.0.0", heir
	eventually(t, "the heir runs", func() bool {
		// One that comes when it has begun waits for the outcome.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_ = c.Get(ctx, agent.Request{Op: agent.OpStatus}, nil, nil)
		_, err := os.Stat(begun)
		return err == nil
	})

	r.expire(90 * time.Second)
	tunnel, asked := make(chan string, 1), make(chan error, 1)
	go func() {
		_, status := r.rawConnect(access, "prod.zt.test")
		tunnel <- status
	}()
	go func() {
		_, err := r.credential(false)
		asked <- err
	}()
	select {
	case status := <-tunnel:
		t.Errorf("a session was renewed in the middle: %s", status)
	case err := <-asked:
		t.Errorf("a request was answered in the middle: %v", err)
	case <-time.After(500 * time.Millisecond): // nothing happens: there is nothing to wait for
	}
	if n := r.idp.Counters().Refreshes; n != 0 {
		t.Errorf("%d refreshes in the middle", n)
	}
	if strings.Contains(r.log.String(), "did not take over") {
		t.Fatal("too late to tell")
	}
	data, err := os.ReadFile(begun)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, strings.TrimSpace(string(data)))

	if err := <-asked; err != nil {
		t.Errorf("after it: %v", err)
	}
	if status := <-tunnel; !strings.Contains(status, " 200 ") {
		t.Errorf("after it: %s", status)
	}
	if c := r.idp.Counters(); c.Refreshes != 1 || c.Reuses != 0 {
		t.Errorf("%d refreshes, %d reuses, want 1 and 0", c.Refreshes, c.Reuses)
	}
}

// kill ends the heir that the test itself has written.
func kill(t *testing.T, pid string) {
	t.Helper()
	n := 0
	for _, c := range pid {
		n = 10*n + int(c-'0')
	}
	if n < 2 {
		t.Fatalf("pid %q", pid)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
