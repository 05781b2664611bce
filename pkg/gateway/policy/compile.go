package policy

import (
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// Compiled is one version of the configuration, indexed for decisions.
type Compiled struct {
	version string
}

// Compile indexes objects that were defaulted and validated before.
func Compile(version string, clusters []*v1alpha1.TargetCluster, roles []*v1alpha1.AccessRole, policies []*v1alpha1.AccessPolicy) (*Compiled, []error) {
	return &Compiled{version: version}, nil
}

// Version names the configuration that was compiled.
func (c *Compiled) Version() string { return c.version }

// Roles are the roles that s holds, sorted by name.
func (c *Compiled) Roles(s Subject) []wire.Role { return nil }

// Visible reports whether somebody with these roles may know the cluster: an
// Allow names it for one of them, or it is Permissive, or they are zt's admins.
func (c *Compiled) Visible(cluster wire.ClusterName, roles []wire.Role, now time.Time) bool {
	return false
}

// Coverage says how a cluster is enforced: "no policy", "Enforcing" or
// "Permissive until …".
func (c *Compiled) Coverage(cluster wire.ClusterName, now time.Time) string { return "no policy" }

// Decide judges one request.
func (c *Compiled) Decide(in Input) Decision { return Decision{Rule: -1, Version: c.version} }
