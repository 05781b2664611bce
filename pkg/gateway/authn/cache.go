package authn

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// cacheFor is how long a verified token is not verified again: short, so
	// that a rotated key and a changed configuration bite.
	cacheFor = 10 * time.Second
	// cacheSize bounds the entries of one generation.
	cacheSize = 4096
)

func digest(raw string) [sha256.Size]byte { return sha256.Sum256([]byte(raw)) }

// cached is what a verified token was found to be.
type cached struct {
	identity *Identity
	audience string
	until    time.Time
}

// cache keeps verified tokens by their SHA-256, never the tokens. Two
// generations take turns: when the young one is full it becomes the old one,
// so that the size is bounded without a walk.
type cache struct {
	now func() time.Time

	mu         sync.RWMutex
	young, old map[[sha256.Size]byte]cached
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, young: map[[sha256.Size]byte]cached{}}
}

func (c *cache) get(sum [sha256.Size]byte) (cached, bool) {
	c.mu.RLock()
	entry, ok := c.young[sum]
	if !ok {
		entry, ok = c.old[sum]
	}
	c.mu.RUnlock()
	return entry, ok && c.now().Before(entry.until)
}

// put keeps entry until it is 10 s old or the token has expired.
func (c *cache) put(sum [sha256.Size]byte, entry cached, expires time.Time) {
	entry.until = c.now().Add(cacheFor)
	if expires.Before(entry.until) {
		entry.until = expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= cacheSize {
		c.old, c.young = c.young, make(map[[sha256.Size]byte]cached, cacheSize)
	}
	c.young[sum] = entry
}
