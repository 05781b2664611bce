package metrics

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Probes counts connections that end before a ClientHello, which is what the
// TCP health checks of load balancers look like, and says so once per period
// instead of once per probe.
type Probes struct {
	metrics *Metrics
	seen    atomic.Int64
}

// NewProbes counts into m, which may be nil.
func NewProbes(m *Metrics) *Probes { return &Probes{metrics: m} }

// Seen counts one.
func (p *Probes) Seen() {
	p.seen.Add(1)
	if p.metrics != nil {
		p.metrics.probes.Inc()
	}
}

// Run logs one summary line per period in which there was a probe, until ctx
// ends.
func (p *Probes) Run(ctx context.Context, log *slog.Logger, period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if n := p.seen.Swap(0); n > 0 {
				log.Info("connections closed before a ClientHello, as health checks do", "count", n, "period", period)
			}
		}
	}
}
