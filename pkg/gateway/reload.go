package gateway

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"
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
	return errors.Join(err, g.reloadFiles(false), g.audit.Reopen())
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
			_ = g.reloadFiles(true)
		}
	}
}

// reloadFiles loads all that is watched, or what looks different from the last
// time. Each fault is logged and counted, and a condition says that it lasts.
func (g *Gateway) reloadFiles(changedOnly bool) error {
	g.files.mu.Lock()
	defer g.files.mu.Unlock()
	var faults []error
	for _, f := range g.files.all {
		if !f.changed() && changedOnly {
			continue
		}
		err := f.load()
		g.metrics.Reload(f.what, err)
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
func (g *Gateway) reloadConfiguration() error {
	next, err := g.read()
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

func (g *Gateway) reloadIssuers() error {
	raw, err := os.ReadFile(g.c().FurtherIssuersFile)
	if err != nil {
		return err
	}
	return g.further.Reload(raw)
}

// watchedFiles are the files beside the objects that are loaded again when they
// change.
type watchedFiles struct {
	mu  sync.Mutex // one load at a time
	all []*watchedFile
}

type watchedFile struct {
	what  string // "certificate"
	paths []string
	load  func() error
	seen  []fileVersion
}

// fileVersion tells one content of a file from another, cheaply.
type fileVersion struct {
	modified time.Time
	size     int64
}

// add watches paths from what they are now on; without a path it does nothing.
func (w *watchedFiles) add(what string, load func() error, paths ...string) {
	if paths[0] == "" {
		return
	}
	f := &watchedFile{what: what, paths: paths, load: load}
	f.changed()
	w.all = append(w.all, f)
}

// changed reports whether the files look different from the last time.
func (f *watchedFile) changed() bool {
	now := make([]fileVersion, len(f.paths))
	for i, path := range f.paths {
		if info, err := os.Stat(path); err == nil { // else in the middle of being replaced
			now[i] = fileVersion{info.ModTime(), info.Size()}
		}
	}
	changed := !slices.Equal(now, f.seen)
	f.seen = now
	return changed
}
