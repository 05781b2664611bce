package gateway

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/wire"
)

// authorityPatience bounds the wait for a certificateAuthorityFile that is being
// written when its cluster is made.
const authorityPatience = time.Second

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

	authority files.Reading // of made's certificateAuthorityFile
	outdated  bool          // that file says something else now
}

// sync makes the enforcement points be those of want. One that cannot be made
// is reported, and what was there before serves nobody on: it leads to another
// cluster than the one that people and policies speak of by now.
func (c *clusters) sync(ctx context.Context, want map[wire.ClusterName]*v1alpha1.TargetCluster) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = make(map[wire.ClusterName]*runningKube)
	}
	for name, r := range c.running {
		if want[name] == nil {
			c.end(r)
			delete(c.running, name)
			c.stale(name, false)
			c.log.Info("cluster removed", "cluster", name)
		}
	}
	var faults []error
	for name, cluster := range want {
		old := c.running[name]
		if old != nil && !old.outdated && SameUpstream(old.made, cluster) {
			c.stale(name, false) // perhaps what could not be made is not wanted any more
			continue
		}
		next, err := c.begin(ctx, cluster)
		c.stale(name, err != nil)
		if err != nil {
			faults = append(faults, fmt.Errorf("cluster %q: %w", name, err))
			continue
		}
		c.running[name] = next
		c.run(c.running[name])
		if old != nil {
			c.end(old)
		}
	}
	return errors.Join(faults...)
}

// begin makes the enforcement point of one cluster, with what its authority's
// file holds now.
func (c *clusters) begin(ctx context.Context, cluster *v1alpha1.TargetCluster) (*runningKube, error) {
	if cluster.Spec.InCluster && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil, ErrNoPod // before the account's files are missed, which only a pod has
	}
	r := &runningKube{made: cluster}
	if file := cluster.Spec.CertificateAuthorityFile; file != "" {
		ctx, cancel := context.WithTimeout(ctx, authorityPatience)
		defer cancel()
		var err error
		if r.authority, err = files.Read(ctx, file); err != nil {
			return nil, fmt.Errorf("certificateAuthorityFile: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(r.authority.Data[0]) {
			return nil, fmt.Errorf("certificateAuthorityFile %s: no certificate in it", file)
		}
		cluster = cluster.DeepCopy()
		cluster.Spec.CertificateAuthorityFile, cluster.Spec.CertificateAuthorityData = "", string(r.authority.Data[0])
	}
	var err error
	if r.kube, err = c.make(cluster); err != nil {
		return nil, err
	}
	r.kube.made = r.made
	return r, nil
}

func (c *clusters) stale(name wire.ClusterName, holds bool) {
	c.metrics.Condition("cluster/"+string(name), "Stale", holds)
}

// renewed reports whether the authority of some cluster is another than at the
// last look; sync then replaces that cluster, unless the old one came back. A file
// that was written anew with the same content, as the kubelet does each hour, ends
// nothing. It reads without the lock, for streams wait for that.
func (c *clusters) renewed(ctx context.Context) bool {
	c.mu.Lock()
	running := slices.Collect(maps.Values(c.running))
	c.mu.Unlock()
	found := false
	for _, r := range running {
		file := r.made.Spec.CertificateAuthorityFile
		c.mu.Lock()
		used := r.authority
		c.mu.Unlock()
		if file == "" || files.Print(file) == used.Print {
			continue
		}
		now, err := files.Read(ctx, file)
		if ctx.Err() != nil {
			return false
		}
		if errors.Is(err, files.ErrUnstable) {
			continue // the next look will find it
		}
		same := err == nil && bytes.Equal(now.Data[0], used.Data[0])
		c.mu.Lock()
		found = found || !same || r.outdated
		r.authority.Print, r.outdated = now.Print, !same
		c.mu.Unlock()
	}
	return found
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
	return r != nil && r.kube.Reachable() && r.kube.outdated(r.kube.o.Snapshot()) == nil
}
