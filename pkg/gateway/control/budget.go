package control

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/lru"

	"github.com/kube-zt/zt/pkg/wire"
)

// budgetSources is how many sources are remembered; the longest unseen goes
// first, and with it at most the memory that it had used up its budget.
const budgetSources = 16384

// floodRecords is how many refusals a second, of all sources, are recorded when
// a budget is spent. The metrics count every one; a line for each would let a
// stranger fill the disk, and without the audit log nothing goes any more.
const floodRecords = 10

// budget bounds what one source may cost in a minute. A source is an IPv4
// address or an IPv6 /64, which is what one subscriber has.
type budget struct {
	perMinute func() int
	now       func() time.Time

	mu      sync.Mutex
	sources *lru.Cache
}

func newBudget(perMinute func() int, now func() time.Time) *budget {
	return &budget{perMinute: perMinute, now: now, sources: lru.New(budgetSources)}
}

// take spends one, or refuses with the time after which it is worth asking.
func (b *budget) take(from netip.Addr) *wire.Refusal {
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	key, _ := from.WithZone("").Prefix(bits) // no address at all is a source, too
	n := b.perMinute()
	b.mu.Lock()
	defer b.mu.Unlock()
	perSecond, now := rate.Limit(float64(n)/60), b.now()
	var l *rate.Limiter
	if known, ok := b.sources.Get(key); ok {
		l = known.(*rate.Limiter)
	} else {
		l = rate.NewLimiter(perSecond, n)
		b.sources.Add(key, l)
	}
	if l.Burst() != n { // configured anew
		l.SetLimitAt(now, perSecond)
		l.SetBurstAt(now, n)
	}
	if l.AllowN(now, 1) {
		return nil
	}
	return wire.Refuse(wire.ReasonLimit, "wait a minute and try again", "too many logins from this address")
}
