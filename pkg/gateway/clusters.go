package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/wire"
)

// clusters are the running enforcement points. They come and go with the
// objects; one whose way to its cluster has changed is replaced, so that
// requests under way end on the old way and new ones take the new.
type clusters struct {
	make    func(*v1alpha1.TargetCluster) (*Kube, error)
	log     *slog.Logger
	metrics *metrics.Metrics

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // the life of what start has begun; nil before
	running map[wire.ClusterName]*runningKube
	ended   sync.WaitGroup
}

type runningKube struct {
	kube *Kube
	made *v1alpha1.TargetCluster // what kube was made for
	stop context.CancelFunc      // nil until started
}

// sync makes the enforcement points be those of want. One that cannot be made
// leaves what was there before and is reported.
func (c *clusters) sync(want map[wire.ClusterName]*v1alpha1.TargetCluster) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = make(map[wire.ClusterName]*runningKube)
	}
	for name, r := range c.running {
		if want[name] == nil {
			c.end(r)
			delete(c.running, name)
			c.log.Info("cluster removed", "cluster", name)
		}
	}
	var faults []error
	for name, cluster := range want {
		old := c.running[name]
		if old != nil && SameUpstream(old.made, cluster) {
			continue
		}
		kube, err := c.make(cluster)
		if err != nil {
			faults = append(faults, fmt.Errorf("cluster %q: %w", name, err))
			continue
		}
		c.running[name] = &runningKube{kube: kube, made: cluster}
		c.run(c.running[name])
		if old != nil {
			c.end(old)
		}
	}
	return errors.Join(faults...)
}

// start runs what sync has made and will make, until ctx or stop.
func (c *clusters) start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
	for _, r := range c.running {
		c.run(r)
	}
}

// run needs the lock.
func (c *clusters) run(r *runningKube) {
	if c.ctx == nil || r.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(c.ctx)
	r.stop = stop
	c.ended.Go(func() {
		if err := r.kube.Run(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("enforcement point ended", "cluster", r.made.Name, "error", err)
		}
	})
}

// end needs the lock.
func (c *clusters) end(r *runningKube) {
	if r.stop != nil {
		r.stop()
	}
}

// stop ends all and waits.
func (c *clusters) stop() {
	c.mu.Lock()
	for _, r := range c.running {
		c.end(r)
	}
	c.mu.Unlock()
	c.ended.Wait()
}

// drain lets all finish what is short, at most until ctx ends.
func (c *clusters) drain(ctx context.Context) {
	c.mu.Lock()
	var drains sync.WaitGroup
	for _, r := range c.running {
		drains.Go(func() {
			if err := r.kube.Drain(ctx); err != nil {
				c.log.Error("drain", "cluster", r.made.Name, "error", err)
			}
		})
	}
	c.mu.Unlock()
	drains.Wait()
}

// backend is nil where there is no such cluster.
func (c *clusters) backend(name wire.ClusterName) edge.Backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.running[name]; r != nil {
		return r.kube
	}
	return nil // not a nil *Kube in an interface
}

func (c *clusters) reachable(name wire.ClusterName) bool {
	c.mu.Lock()
	r := c.running[name]
	c.mu.Unlock()
	return r != nil && r.kube.Reachable()
}
