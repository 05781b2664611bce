package control

import (
	"bytes"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// attempts counts the lines that say that sessions could not be judged.
type attempts struct{ atomic.Int64 }

func (a *attempts) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("could not be held against the new state")) {
		a.Add(1)
	}
	return len(line), nil
}

// What takes away without being written changes the state, too: while the disk
// fails, sessions are judged once in a while and not as fast as that goes.
func TestFailingStoreIsNotAskedAllTheTime(t *testing.T) {
	t.Parallel()
	var failed attempts
	r := start(t, rigOptions{logger: slog.New(slog.NewTextHandler(&failed, nil))})
	l := r.laptop().login("alice")
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	revoked := &v1alpha1.Revocation{Spec: v1alpha1.RevocationSpec{Certificate: l.identity().Serial}}
	r.registry.Apply([]*v1alpha1.Revocation{revoked}, wire.Epoch{Generation: 1 << 62})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var first time.Time
	for end := time.Now().Add(10 * time.Second); first.IsZero() || time.Since(first) < retryEvery/2; <-tick.C {
		r.Changed()
		if first.IsZero() && failed.Load() > 0 {
			first = time.Now()
		}
		if time.Now().After(end) {
			t.Fatal("the session was never judged")
		}
	}
	if n := failed.Load(); n > 2 {
		t.Errorf("asked %d times in %s", n, retryEvery/2)
	}
}
