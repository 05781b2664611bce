package evidence

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// Errors of ReplayCache.Add.
var (
	ErrReplayed   = errors.New("proof was seen before")
	ErrReplayFull = errors.New("too many proofs at once")
)

// defaultReplaySize allows for 4,000 new streams a second and costs at most
// some 10 MB, when they really come.
const defaultReplaySize = 4000 * int(MaxProofAge/time.Second)

// One proof key has no more than its part, or one insider could shut everybody
// else out. A laptop opens a stream per kubectl connection and renews once in
// half an hour; a renewal costs so little to send that it gets less room.
const (
	streamsPerSigner  = 8 // the size divided by this
	renewalsPerSigner = 128
)

// ReplayCache remembers proofs for as long as they are good. It is bounded, in
// all and for each signer: when it is full it refuses, for forgetting would let a
// replay in. The zero value is ready; it may be shared by several acceptors and
// used concurrently.
type ReplayCache struct {
	// Size bounds how many proofs are remembered; 0 means 240,000.
	Size int

	mu           sync.Mutex
	older, newer generation
	since        time.Time
}

// generation is what came within MaxProofAge: when the older of two goes,
// everything in it has expired. That is cheaper than a timer for each proof.
type generation struct {
	seen     map[key]struct{}
	bySigner map[share]int
}

// share is what is counted together.
type share struct {
	signer wire.Thumbprint
	renew  bool
}

// key is the first half of a SHA-256: proofs come only from the authenticated,
// and 128 bits keep even them from finding a pair.
type key [16]byte

// Add remembers the proof with this signer and id. It returns ErrReplayed if it
// was there and ErrReplayFull if there is no room.
func (c *ReplayCache) Add(p *Proof, now time.Time) error {
	sum := sha256.Sum256([]byte(string(p.Identity.Proof) + "." + p.JTI))
	k := key(sum[:16])
	of := share{p.Identity.Proof, p.Renew}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	_, inOlder := c.older.seen[k]
	_, inNewer := c.newer.seen[k]
	switch {
	case inOlder || inNewer:
		return ErrReplayed
	case len(c.older.seen)+len(c.newer.seen) >= c.size(),
		c.older.bySigner[of]+c.newer.bySigner[of] >= c.room(p.Renew):
		return ErrReplayFull
	}
	c.newer.seen[k] = struct{}{}
	c.newer.bySigner[of]++
	return nil
}

// turn drops what has expired. c.mu is held.
func (c *ReplayCache) turn(now time.Time) {
	age := now.Sub(c.since)
	switch {
	case c.newer.seen == nil || age >= 2*MaxProofAge:
		c.older, c.newer, c.since = generation{}, newGeneration(), now
	case age >= MaxProofAge:
		c.older, c.newer, c.since = c.newer, newGeneration(), now
	case age < 0:
		// The clock went back: keep everything, and count from here.
		c.since = now
	}
}

func newGeneration() generation {
	return generation{map[key]struct{}{}, map[share]int{}}
}

// room is how many proofs of one signer are remembered.
func (c *ReplayCache) room(renew bool) int {
	if renew {
		return min(renewalsPerSigner, c.size())
	}
	return max(c.size()/streamsPerSigner, 1)
}

func (c *ReplayCache) size() int {
	if c.Size > 0 {
		return c.Size
	}
	return defaultReplaySize
}
