package evidence

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func proofOf(signer, id string) *Proof {
	return &Proof{JTI: id, Identity: trust.Identity{Proof: wire.Thumbprint(signer)}}
}

// TestReplayCache: seen once, remembered for as long as a proof can live, bounded.
func TestReplayCache(t *testing.T) {
	t.Parallel()
	start := time.Now()
	type step struct {
		after  time.Duration
		signer string
		want   error
	}
	for name, steps := range map[string][]step{
		"again at once":              {{0, "a", nil}, {0, "a", ErrReplayed}},
		"another signer":             {{0, "a", nil}, {0, "b", nil}},
		"again before it expires":    {{0, "a", nil}, {MaxProofAge, "a", ErrReplayed}},
		"added late in a generation": {{0, "x", nil}, {MaxProofAge - 1, "a", nil}, {2*MaxProofAge - 2, "a", ErrReplayed}},
		"forgotten in the end":       {{0, "a", nil}, {2 * MaxProofAge, "a", nil}},
		"clock goes back":            {{0, "a", nil}, {-time.Hour, "a", ErrReplayed}, {-time.Hour + MaxProofAge, "b", nil}, {-time.Hour + MaxProofAge, "a", ErrReplayed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c ReplayCache
			for i, s := range steps {
				if err := c.Add(proofOf(s.signer, "id"), start.Add(s.after)); !errors.Is(err, s.want) {
					t.Errorf("step %d: %v, want %v", i, err, s.want)
				}
			}
		})
	}
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		c := ReplayCache{Size: 3}
		for i := range 3 {
			if err := c.Add(proofOf("a", fmt.Sprint(i)), start); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Add(proofOf("a", "new"), start.Add(MaxProofAge)); !errors.Is(err, ErrReplayFull) {
			t.Errorf("one too many: %v", err)
		}
		if err := c.Add(proofOf("a", "1"), start.Add(MaxProofAge)); !errors.Is(err, ErrReplayed) {
			t.Errorf("a full cache forgot: %v", err)
		}
		if err := c.Add(proofOf("a", "new"), start.Add(2*MaxProofAge)); err != nil {
			t.Errorf("after all have expired: %v", err)
		}
	})
	t.Run("at the same time", func(t *testing.T) {
		t.Parallel()
		var c ReplayCache
		var won atomic.Int32
		var racers sync.WaitGroup
		for range 50 {
			racers.Go(func() {
				if c.Add(proofOf("a", "id"), start) == nil {
					won.Add(1)
				}
			})
		}
		racers.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 50 won", won.Load())
		}
	})
}
