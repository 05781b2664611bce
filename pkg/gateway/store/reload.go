package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// poll is how often config/ is looked at where no notice of a change comes:
	// network file systems, exhausted inotify watches.
	poll = 500 * time.Millisecond
	// gather lets the notices of one change arrive together.
	gather = 20 * time.Millisecond
)

// Reload reads config/ now. On error the old configuration stays, whole; a
// *ConfigError names every problem. Only what takes away and has no fault of its
// own, a Revocation or a revoked Device, comes into force all the same.
func (s *Store) Reload(ctx context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	err := s.reload(ctx)
	switch {
	case err == nil:
		if s.refused != "" {
			s.refused = ""
			s.log.Info("configuration is in order again", "version", s.current.Load().Version)
			s.report(s.current.Load().Version, nil)
		}
	case ctx.Err() != nil:
	case err.Error() != s.refused:
		s.refused = err.Error()
		version := ""
		if old := s.current.Load(); old != nil {
			version = old.Version
			s.log.Error("configuration refused; the old one stays in force", "version", version, "error", s.refused)
		}
		s.report(version, err)
	}
	return err
}

func (s *Store) reload(ctx context.Context) error {
	c, err := LoadConfig(ctx, s.config, s.now())
	var faulty *ConfigError
	if errors.As(err, &faulty) && s.current.Load() != nil {
		if failed := s.takeDenials(ctx, faulty.denials); failed != nil {
			// Not a *ConfigError: Run tries again without a change of the files.
			return fmt.Errorf("%v; and of the files that can be read: %w", err, failed)
		}
	}
	if err != nil {
		return err
	}
	if old := s.current.Load(); old != nil && old.Version == c.Version {
		return nil
	}
	// What must outlive its file goes to the disk before anything is in force;
	// it holds from there on, with the old configuration too.
	if _, err := s.importAll(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	s.loaded = c
	s.publish(s.snapshot())
	s.mu.Unlock()
	s.log.Info("configuration loaded", "version", c.Version, "content", c.Summary())
	if s.refused == "" {
		s.report(s.current.Load().Version, nil)
	}
	return nil
}

// importAll puts the revocations of c in force for good and says how many were
// not before. A disk that fails keeps none of them out: ErrNotDurable.
func (s *Store) importAll(ctx context.Context, c *Config) (int, error) {
	s.mu.Lock()
	imports, late := s.imports(c)
	var first error
	if late { // persist has it in hand; the disk is not asked at each look at the files
		first = fmt.Errorf("%w: %v", ErrNotDurable, s.health.Failing)
	}
	s.mu.Unlock()
	for some := range slices.Chunk(imports, 256) {
		err := s.commit(ctx, some...)
		if err != nil && !errors.Is(err, ErrNotDurable) {
			return 0, fmt.Errorf("import revocations: %w", err)
		}
		if first == nil {
			first = err
		}
		for _, r := range s.imported(some) {
			r.Durable = err == nil
			s.note(r)
		}
	}
	if first != nil {
		return len(imports), fmt.Errorf("import revocations: %w", first)
	}
	return len(imports), nil
}

// imported are operations as they came into force.
func (s *Store) imported(operations []operation) (all []Import) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range operations {
		if name, held := s.st.nameFor(o.Revoke); held {
			all = append(all, Import{File: o.file, Revocation: s.st.byName[name]})
		}
	}
	return all
}

// takeDenials puts in force what a configuration that is otherwise refused takes
// away: somebody who locks a thief out must not wait for a slip in another file
// to be found.
func (s *Store) takeDenials(ctx context.Context, c *Config) error {
	s.mu.Lock()
	roles, clusters := append(names(c.Roles), names(s.loaded.Roles)...), append(names(c.Clusters), names(s.loaded.Clusters)...)
	s.mu.Unlock()
	denials := &Config{Devices: c.Devices, origin: c.origin}
	for _, r := range c.Revocations {
		if known(r.Spec.Role, roles) && known(r.Spec.Cluster, clusters) {
			denials.Revocations = append(denials.Revocations, r)
		}
	}
	n, err := s.importAll(ctx, denials)
	if n > 0 {
		s.log.Warn("configuration is faulty; the revocations in it hold all the same", "revocations", n)
	}
	return err
}

func known(name string, names []string) bool { return name == "" || slices.Contains(names, name) }

// snapshot builds the present one from configuration and state; the caller
// holds mu.
func (s *Store) snapshot() *Snapshot {
	c := s.loaded
	next := &Snapshot{
		Epoch: s.st.epoch(), Version: c.Version, Policy: c.Policy,
		Clusters:    make(map[wire.ClusterName]*v1alpha1.TargetCluster, len(c.Clusters)),
		Roles:       make(map[wire.Role]*v1alpha1.AccessRole, len(c.Roles)),
		Policies:    make(map[string]*v1alpha1.AccessPolicy, len(c.Policies)),
		Devices:     make(map[wire.DeviceID]v1alpha1.Device, len(c.Devices)+len(s.st.Devices)),
		Revocations: s.st.Revocations,
	}
	for _, o := range c.Clusters {
		next.Clusters[wire.ClusterName(o.Name)] = o
	}
	for _, o := range c.Roles {
		next.Roles[wire.Role(o.Name)] = o
	}
	for _, o := range c.Policies {
		next.Policies[o.Name] = o
	}
	for id := range s.st.Devices {
		next.Devices[id] = s.merged(id)
	}
	for _, d := range c.Devices {
		next.Devices[wire.DeviceID(d.Name)] = s.merged(wire.DeviceID(d.Name))
	}
	return next
}

// Run watches config/ and reloads on change, within 1 s, until ctx ends. A
// configuration that is refused is reported once and read again when it changes.
func (s *Store) Run(ctx context.Context) error {
	w, err := s.notices()
	if err != nil {
		s.log.Warn("no notices of changed files; looking at them instead", "error", err.Error())
		w = &fsnotify.Watcher{}
	} else {
		defer w.Close()
	}
	watched := map[string]bool{}
	judged := ""
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if t, err := list(s.config); err == nil && t.listing != judged {
			for _, dir := range t.directories {
				if !watched[dir] && w.Events != nil && w.Add(dir) == nil {
					watched[dir] = true
				}
			}
			var refused *ConfigError
			err := s.Reload(ctx)
			if err == nil || errors.As(err, &refused) {
				judged = t.listing
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case event := <-w.Events:
			if event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
				delete(watched, event.Name) // a directory that comes back is another one
			}
			if err := files.Sleep(ctx, gather); err != nil {
				return nil
			}
		case err := <-w.Errors:
			s.log.Warn("watching files", "error", fmt.Sprint(err))
		}
	}
}
