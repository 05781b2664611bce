package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/api/spelling"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/wire"
)

// Config is one whole, valid reading of a directory of manifests.
type Config struct {
	// Version names the content.
	Version     string
	Clusters    []*v1alpha1.TargetCluster
	Roles       []*v1alpha1.AccessRole
	Policies    []*v1alpha1.AccessPolicy
	Devices     []*v1alpha1.Device
	Revocations []*v1alpha1.Revocation
	Policy      *policy.Compiled
	// Files that were read, and those that are no manifests.
	Files, Ignored []string

	wishes map[wire.DeviceID]*v1alpha1.Device
	// origin is the file of each object.
	origin map[v1alpha1.Object]string
}

// ConfigError is every problem of a configuration at once.
type ConfigError struct {
	Problems []manifest.Error

	// denials are objects that only take away and that have no fault of their
	// own: those of files that could be read.
	denials *Config
}

func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// LoadConfig reads the manifests under dir. The error is a *ConfigError where
// people must correct something, or says why dir cannot be read.
func LoadConfig(ctx context.Context, dir string, now time.Time) (*Config, error) {
	t, err := readTree(ctx, dir)
	if err != nil {
		return nil, err
	}
	c := &Config{Version: t.version(), Ignored: t.ignored, wishes: map[wire.DeviceID]*v1alpha1.Device{}, origin: map[v1alpha1.Object]string{}}
	var objects []manifest.Object
	var problems []manifest.Error
	readable := true
	denials := &Config{origin: c.origin}
	for _, f := range t.files {
		c.Files = append(c.Files, f.path)
		found, errs := manifest.Decode(f.path, f.data)
		decoded := len(errs) == 0
		for _, e := range errs {
			readable = readable && e.Field != "" && e.Field != "kind" && e.Field != "apiVersion"
		}
		for i := range found {
			own := found[i].Check(now)
			if decoded && len(own) == 0 {
				denials.deny(found[i].Object)
			}
			if found[i].Object != nil {
				c.origin[found[i].Object] = f.path
			}
			errs = append(errs, own...)
		}
		objects, problems = append(objects, found...), append(problems, errs...)
	}
	problems = append(problems, c.add(objects)...)
	if readable {
		// With an object missing, whatever names it would look wrong.
		problems = append(problems, c.cross(objects)...)
	}
	if len(problems) > 0 {
		manifest.Sort(problems)
		problems = slices.CompactFunc(problems, func(a, b manifest.Error) bool {
			return a.File == b.File && a.Line == b.Line && a.Field == b.Field
		})
		// What a denial may name: a slip must not lie in wait for whatever gets
		// that name one day.
		denials.Roles, denials.Clusters = c.Roles, c.Clusters
		return nil, &ConfigError{Problems: problems, denials: denials}
	}
	return c, nil
}

// deny keeps what can only take away.
func (c *Config) deny(object v1alpha1.Object) {
	switch object := object.(type) {
	case *v1alpha1.Device:
		if object.Spec.Revoked {
			c.Devices = append(c.Devices, object)
		}
	case *v1alpha1.Revocation:
		c.Revocations = append(c.Revocations, object)
	}
}

// add sorts objects by kind and refuses a name that stands twice.
func (c *Config) add(objects []manifest.Object) (problems []manifest.Error) {
	first := map[string]*manifest.Object{}
	for i := range objects {
		o := &objects[i]
		key := o.Kind + " " + o.GetName()
		if before, twice := first[key]; twice && o.GetName() != "" {
			problems = append(problems, o.Problem("metadata.name", "", "%s %q stands already in %s:%d", o.Kind, o.GetName(), before.File, before.Line("")))
			continue
		}
		first[key] = o
		switch object := o.Object.(type) {
		case *v1alpha1.TargetCluster:
			c.Clusters = append(c.Clusters, object)
		case *v1alpha1.AccessRole:
			c.Roles = append(c.Roles, object)
		case *v1alpha1.AccessPolicy:
			c.Policies = append(c.Policies, object)
		case *v1alpha1.Device:
			c.Devices = append(c.Devices, object)
			c.wishes[wire.DeviceID(object.Name)] = object
		case *v1alpha1.Revocation:
			c.Revocations = append(c.Revocations, object)
		}
	}
	return problems
}

// cross compiles, which finds names that lead nowhere.
func (c *Config) cross(objects []manifest.Object) (problems []manifest.Error) {
	where := map[string]*manifest.Object{}
	for i := range objects {
		where[objects[i].Kind+" "+objects[i].GetName()] = &objects[i]
	}
	compiled, errs := policy.Compile(c.Version, c.Clusters, c.Roles, c.Policies)
	for _, err := range errs {
		var p *policy.Problem
		if o := where[problemKey(err, &p)]; o != nil {
			problems = append(problems, o.Problem(p.Field, p.Hint, "%s", p.Message))
			continue
		}
		problems = append(problems, manifest.Error{File: "config", Message: err.Error()})
	}
	c.Policy = compiled

	roles, clusters := names(c.Roles), names(c.Clusters)
	for _, r := range c.Revocations {
		o := where[manifest.KindRevocation+" "+r.Name]
		// A slip here would leave in what somebody meant to lock out.
		problems = append(problems, missing(o, "spec.role", manifest.KindAccessRole, r.Spec.Role, roles)...)
		problems = append(problems, missing(o, "spec.cluster", manifest.KindTargetCluster, r.Spec.Cluster, clusters)...)
	}
	return problems
}

func problemKey(err error, p **policy.Problem) string {
	if !errors.As(err, p) {
		return ""
	}
	return (*p).Kind + " " + (*p).Name
}

func missing(o *manifest.Object, field, kind, name string, known []string) []manifest.Error {
	if name == "" || slices.Contains(known, name) {
		return nil
	}
	hint := ""
	if near := spelling.Nearest(name, known); near != "" {
		hint = strconv.Quote(near)
	}
	return []manifest.Error{o.Problem(field, hint, "there is no %s %q", kind, name)}
}

func names[O interface{ GetName() string }](objects []O) []string {
	all := make([]string, len(objects))
	for i, o := range objects {
		all[i] = o.GetName()
	}
	return all
}

// Summary says in one line what was read.
func (c *Config) Summary() string {
	return fmt.Sprintf("%s, %s, %s, %s, %s in %s",
		count(len(c.Clusters), "cluster", "clusters"), count(len(c.Roles), "role", "roles"),
		count(len(c.Policies), "policy", "policies"), count(len(c.Devices), "device", "devices"),
		count(len(c.Revocations), "revocation", "revocations"), count(len(c.Files), "file", "files"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
