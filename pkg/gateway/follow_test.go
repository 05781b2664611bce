package gateway

import (
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestFollowLooksFirst: what came into the state after the gateway was made and
// before anybody followed it holds all the same.
func TestFollowLooksFirst(t *testing.T) {
	t.Parallel()
	w, ctx := newUnstarted(t, time.Second, nil)
	defer w.Close()
	_, err := w.store.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "alice@example.com"}, "admin")
	must(t, err)
	alice := revoke.Facts{User: wire.User{Issuer: wire.Issuer(w.idp.Issuer()), Subject: "alice", Name: "alice@example.com"}}
	if w.registry.Check(alice) != nil {
		t.Fatal("nobody follows yet, and it is known already")
	}
	var following sync.WaitGroup
	following.Go(func() { w.follow(ctx) })
	defer following.Wait()
	defer w.stop()
	for deadline := time.Now().Add(10 * time.Second); w.registry.Check(alice) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never")
		}
	}
}
