package store

import (
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/wire"
)

// Snapshot is one whole version of everything that decisions rest on. It and
// what it points to are never changed; take it once per decision.
type Snapshot struct {
	// Epoch orders snapshots of the state and never goes back.
	Epoch wire.Epoch
	// Version names the content of config/.
	Version  string
	Clusters map[wire.ClusterName]*v1alpha1.TargetCluster
	Roles    map[wire.Role]*v1alpha1.AccessRole
	Policies map[string]*v1alpha1.AccessPolicy
	// Devices are merged: what was seen and what is wished, the stricter wins.
	Devices map[wire.DeviceID]v1alpha1.Device
	// Revocations in force, oldest first, also those whose file is gone.
	Revocations []*v1alpha1.Revocation
	Policy      *policy.Compiled
}

// Device is the merged view of one device.
func (s *Snapshot) Device(id wire.DeviceID) (v1alpha1.Device, bool) {
	d, ok := s.Devices[id]
	return d, ok
}
