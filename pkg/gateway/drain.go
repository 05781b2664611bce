package gateway

import (
	"context"
	"time"
)

// edgeGrace is how much longer than the kube parts the edge waits: what they
// have ended still has to leave through it.
const edgeGrace = 3 * time.Second

// drain ends the service in the order in which nobody is surprised: not ready,
// and all goes on until that was seen; nothing new; short requests finish; long
// ones are told and ended.
func (g *Gateway) drain(ctx context.Context, edgeDone <-chan error) {
	shutdown := g.c().Shutdown
	limit, delay := shutdown.DrainTimeout.Duration, time.Duration(0)
	if shutdown.Delay != nil {
		delay = min(shutdown.Delay.Duration, limit)
	}
	g.log.Info("draining", "limit", limit, "delay", delay)
	g.admin.ready.Store(false)
	select {
	case <-time.After(delay):
	case err := <-edgeDone: // nobody is served any more
		g.log.Error("the public listener ended while draining", "error", err)
		return
	}
	limit -= delay

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
