package control

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/lru"

	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/wire"
)

// budgetSources is how many sources are remembered; the longest unseen goes
// first, and with it at most the memory that it had used up its budget.
const budgetSources = 16384

// siteBudgets is how many sources' budgets an IPv6 site has in all.
const siteBudgets = 8

// floodRecords is how many refusals a second, and checks of devices that nobody has
// used, of all sources, are recorded before it is known who asks. The metrics count
// every one; a line for each would let a stranger fill the disk, and without the
// audit log nothing goes any more.
const floodRecords = 10

// budget bounds what one source, and one site, may cost in a minute.
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
	n, now := b.perMinute(), b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	// The site first: when it may do nothing any more, its sources are not even
	// remembered, or they would push out everybody else.
	var spent []*rate.Limiter
	for _, prefix := range slices.Backward(limit.Sources(from)) {
		most := n
		if limit.IsSite(prefix) {
			most *= siteBudgets
		}
		l := b.limiter(prefix, most, now)
		if l.TokensAt(now) < 1 {
			return wire.Refuse(wire.ReasonLimit, "wait a minute and try again", "too many logins from this address")
		}
		spent = append(spent, l)
	}
	for _, l := range spent {
		l.AllowN(now, 1)
	}
	return nil
}

// limiter of a prefix, as it is configured now. The caller holds b.mu.
func (b *budget) limiter(prefix netip.Prefix, perMinute int, now time.Time) *rate.Limiter {
	perSecond := rate.Limit(float64(perMinute) / 60)
	known, ok := b.sources.Get(prefix)
	if !ok {
		l := rate.NewLimiter(perSecond, perMinute)
		b.sources.Add(prefix, l)
		return l
	}
	l := known.(*rate.Limiter)
	if l.Burst() != perMinute {
		l.SetLimitAt(now, perSecond)
		l.SetBurstAt(now, perMinute)
	}
	return l
}
