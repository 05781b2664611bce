package gateway

import (
	"context"
	"time"
)

// edgeGrace is how much longer than the kube parts the edge waits: what they
// have ended still has to leave through it.
const edgeGrace = 3 * time.Second

// drain ends the service in the order in which nobody is surprised: not ready;
// nothing new; short requests finish; long ones are told and ended.
func (g *Gateway) drain(ctx context.Context, edgeDone <-chan error) {
	limit := g.c().Shutdown.DrainTimeout.Duration
	g.log.Info("draining", "limit", limit)
	g.admin.ready.Store(false)

	outer, cancelOuter := context.WithTimeout(ctx, limit+edgeGrace)
	defer cancelOuter()
	inner, cancelInner := context.WithTimeout(ctx, limit)
	defer cancelInner()
	edgeDrained := make(chan struct{})
	go func() {
		defer close(edgeDrained)
		g.edge.Drain(outer)
	}()
	g.clusters.drain(inner)
	g.control.Drain(inner)
	<-edgeDrained
	if err := <-edgeDone; err != nil {
		g.log.Warn("the public listener ended with an error", "error", err)
	}
}
