package session

import (
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// worthSaying is the offset from which a person is warned, tooFar the one
	// beyond which certificates and tokens of others would not hold either (V056).
	worthSaying = time.Minute
	tooFar      = 15 * time.Minute
	// vague is the round trip from which a sample says little about the time.
	vague = 2 * time.Second
	// stale is the age from which any sample is better than the old one.
	stale = 10 * time.Minute
	// drift is what two good clocks may come apart until a sample is stale.
	drift = 100 * time.Millisecond
)

// clock is the gateway's, measured by its answers. Proofs are dated by it, and
// what the gateway dates is translated back for this machine.
type clock struct {
	now func() time.Time

	mu       sync.Mutex
	offset   time.Duration // gateway minus here
	error    time.Duration // half the round trip of that sample
	measured time.Time
}

// observe takes the time in an answer to a request that lasted from sent to now.
func (c *clock) observe(gateway, sent time.Time) {
	if gateway.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	here := c.now()
	trip := here.Sub(sent)
	offset := gateway.Sub(sent.Add(trip / 2)).Round(0)
	// The best sample counts, for a while; a slow answer is better than none. Two
	// that cannot both be right mean that one of the clocks was set in between.
	known := !c.measured.IsZero() && here.Sub(c.measured) < stale && here.After(c.measured)
	agree := (offset - c.offset).Abs() <= c.error+trip/2+drift
	if known && agree && (trip > vague || trip/2 > 2*c.error) {
		return
	}
	c.offset, c.error, c.measured = offset, trip/2, here
}

// Now is the time at the gateway.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now().Add(c.offset)
}

// here translates a time of the gateway.
func (c *clock) here(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(-c.offset)
}

func (c *clock) skew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

// check refuses a clock that is hopeless and describes one that is merely wrong.
func (c *clock) check() (warning string, err error) {
	off := c.skew()
	switch {
	case off.Abs() > tooFar:
		return "", fault.New(fault.ExitFailed, "set the clock of this computer", "clock skew: this computer is %s the gateway", ahead(-off)).Because(wire.ReasonClockSkew)
	case off.Abs() > worthSaying:
		return "this computer's clock is " + ahead(-off) + " the gateway", nil
	}
	return "", nil
}

func ahead(d time.Duration) string {
	if d < 0 {
		return d.Abs().Round(time.Second).String() + " behind"
	}
	return d.Round(time.Second).String() + " ahead of"
}
