package gateway

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/files"
)

// filePeriod is how often files are looked at.
const filePeriod = 2 * time.Second

// Reload loads now what is otherwise loaded when it is seen to change: the
// objects, the configuration and the files that it names, and the log's file
// after a rotation. What has a fault stays as it was; the others are loaded.
func (g *Gateway) Reload(ctx context.Context) error {
	err := g.store.Reload(ctx)
	if err != nil {
		g.log.Error("the objects were not loaded, the old ones stay", "error", err)
	}
	err = errors.Join(err, g.reloadFiles(ctx, false), g.audit.Reopen())
	g.renewClusters(ctx)
	return err
}

// renewClusters has those clusters replaced whose authority has changed. The one
// who follows the state does it, lest an older state be put over a newer one.
func (g *Gateway) renewClusters(ctx context.Context) {
	if !g.clusters.renewed(ctx) {
		return
	}
	g.log.Info("the certificate authority of a cluster has changed")
	select {
	case g.renewed <- struct{}{}:
	default: // one that was not read yet says the same
	}
}

// watchFiles loads files when they change, until ctx ends.
func (g *Gateway) watchFiles(ctx context.Context) {
	tick := time.NewTicker(filePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = g.reloadFiles(ctx, true)
			g.renewClusters(ctx)
		}
	}
}

// reloadFiles loads all that is watched, or what looks different from the last
// time. Each fault is logged and counted, and a condition says that it lasts.
func (g *Gateway) reloadFiles(ctx context.Context, changedOnly bool) error {
	g.files.mu.Lock()
	defer g.files.mu.Unlock()
	var faults []error
	for _, f := range g.files.all {
		if changedOnly && files.Print(f.paths...) == f.seen {
			continue
		}
		data, err := f.read(ctx)
		if err == nil {
			err = f.load(data)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		g.metrics.Reload(f.what, err)
		g.recordReload(f.what, files.Version(data...), err)
		g.metrics.Condition(f.what, "Stale", err != nil)
		if err != nil {
			g.log.Error("not loaded, the old one stays", "what", f.what, "error", err)
			faults = append(faults, err)
		} else {
			g.log.Info("loaded", "what", f.what)
		}
	}
	return errors.Join(faults...)
}

// reloadConfiguration puts in force what can change while the gateway runs, and
// says what waits for the next start.
func (g *Gateway) reloadConfiguration(data [][]byte) error {
	next, err := g.parse(data[0])
	if err != nil {
		return err
	}
	live, waiting := g.c().Reloaded(next)
	g.config.Store(live)
	g.metrics.Condition("configuration", "RestartNeeded", len(waiting) > 0)
	if len(waiting) > 0 {
		g.log.Warn("these settings wait for the next start", "fields", waiting)
	}
	g.control.Changed()
	return nil
}

// renewIssuerCA says that the issuer's authority waits for the next start: it is
// part of what laptops were told, too.
func (g *Gateway) renewIssuerCA(used, now []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(now) {
		return errors.New("oidc.certificateAuthorityFile: no certificate in it")
	}
	waits := !bytes.Equal(used, now)
	g.metrics.Condition("issuer authority", "RestartNeeded", waits)
	if waits {
		g.log.Warn("the issuer's certificate authority waits for the next start", "file", g.c().OIDC.CertificateAuthorityFile)
	}
	return nil
}

func (g *Gateway) reloadIssuers(data [][]byte) error { return g.further.Reload(data[0]) }

// watchedFiles are the files beside the objects that are loaded again when they
// change.
type watchedFiles struct {
	mu  sync.Mutex // one load at a time
	all []*watchedFile
}

// watchedFile is one file, or some that belong together.
type watchedFile struct {
	what  string // "certificate"
	paths []string
	load  func(data [][]byte) error
	seen  string // of files.Print when they were read last
}

// add watches paths from what they are now on; without a path it does nothing.
// Whoever reads them himself reads them after it.
func (w *watchedFiles) add(what string, load func(data [][]byte) error, paths ...string) {
	if paths[0] != "" {
		w.all = append(w.all, &watchedFile{what: what, paths: paths, load: load, seen: files.Print(paths...)})
	}
}

// read is the content of the files, whole: what is being written is waited for,
// now or, when that takes too long, at the next look.
func (f *watchedFile) read(ctx context.Context) ([][]byte, error) {
	r, err := files.Read(ctx, f.paths...)
	f.seen = r.Print
	return r.Data, err
}
