package evidence

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// Errors of ReplayCache.Add.
var (
	ErrReplayed   = errors.New("proof was seen before")
	ErrReplayFull = errors.New("too many proofs at once")
)

// defaultReplaySize allows for 4,000 new streams a second and costs at most
// some 10 MB, when they really come.
const defaultReplaySize = 4000 * int(MaxProofAge/time.Second)

// ReplayCache remembers proofs for as long as they are good. It is bounded: when
// it is full it refuses, for forgetting would let a replay in. The zero value is
// ready; it may be shared by several acceptors and used concurrently.
type ReplayCache struct {
	// Size bounds how many proofs are remembered; 0 means 240,000.
	Size int

	mu sync.Mutex
	// Two generations of MaxProofAge each: when the older one goes, everything
	// in it has expired. That is cheaper than a timer for each proof.
	older, newer map[key]struct{}
	since        time.Time
}

// key is the first half of a SHA-256: proofs come only from the authenticated,
// and 128 bits keep even them from finding a pair.
type key [16]byte

// Add remembers the proof with this signer and id. It returns ErrReplayed if it
// was there and ErrReplayFull if there is no room.
func (c *ReplayCache) Add(p *Proof, now time.Time) error {
	sum := sha256.Sum256([]byte(string(p.Identity.Proof) + "." + p.JTI))
	k := key(sum[:16])

	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(now)
	_, inOlder := c.older[k]
	_, inNewer := c.newer[k]
	switch {
	case inOlder || inNewer:
		return ErrReplayed
	case len(c.older)+len(c.newer) >= c.size():
		return ErrReplayFull
	}
	c.newer[k] = struct{}{}
	return nil
}

// turn drops what has expired. c.mu is held.
func (c *ReplayCache) turn(now time.Time) {
	age := now.Sub(c.since)
	switch {
	case c.newer == nil || age >= 2*MaxProofAge:
		c.older, c.newer, c.since = nil, make(map[key]struct{}), now
	case age >= MaxProofAge:
		c.older, c.newer, c.since = c.newer, make(map[key]struct{}), now
	case age < 0:
		// The clock went back: keep everything, and count from here.
		c.since = now
	}
}

func (c *ReplayCache) size() int {
	if c.Size > 0 {
		return c.Size
	}
	return defaultReplaySize
}
