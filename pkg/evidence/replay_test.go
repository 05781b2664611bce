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
			if err := c.Add(proofOf(fmt.Sprint(i), "id"), start); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Add(proofOf("new", "id"), start.Add(MaxProofAge)); !errors.Is(err, ErrReplayFull) {
			t.Errorf("one too many: %v", err)
		}
		if err := c.Add(proofOf("1", "id"), start.Add(MaxProofAge)); !errors.Is(err, ErrReplayed) {
			t.Errorf("a full cache forgot: %v", err)
		}
		if err := c.Add(proofOf("new", "id"), start.Add(2*MaxProofAge)); err != nil {
			t.Errorf("after all have expired: %v", err)
		}
	})
	// One signer fills his own part and nobody else's, and with renewals, which
	// open nothing, not even the part for his streams.
	t.Run("one signer's part", func(t *testing.T) {
		t.Parallel()
		for _, renew := range []bool{true, false} {
			c := ReplayCache{Size: 4000}
			add := func(signer, id string, renew bool, after time.Duration) error {
				p := proofOf(signer, id)
				p.Renew = renew
				return c.Add(p, start.Add(after))
			}
			let := 0
			for i := range 5000 {
				if add("a", fmt.Sprint(i), renew, time.Duration(i)*MaxProofAge/4000) == nil {
					let++
				}
			}
			if want := map[bool]int{true: renewalsPerSigner, false: 4000 / streamsPerSigner}[renew]; let != want {
				t.Errorf("renewals %t: %d, want %d", renew, let, want)
			}
			if err := add("b", "id", false, 5*MaxProofAge/4); err != nil {
				t.Errorf("renewals %t: somebody else: %v", renew, err)
			}
			if err := add("a", "other", !renew, 5*MaxProofAge/4); err != nil {
				t.Errorf("renewals %t: the other kind: %v", renew, err)
			}
			if err := add("a", "later", renew, 4*MaxProofAge); err != nil {
				t.Errorf("renewals %t: after all have expired: %v", renew, err)
			}
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
