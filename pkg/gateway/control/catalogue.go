package control

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// clusters answers with the catalogue.
func (c *Control) clusters(w http.ResponseWriter, r *http.Request) {
	p := peerOf(r)
	list, _, refusal := c.catalogue(p.identity)
	if refusal != nil {
		edge.WriteRefusal(w, c.refused("catalogue", p.record(audit.EventStream), refusal, nil))
		return
	}
	writeJSON(w, http.StatusOK, wire.ClusterList{Clusters: list})
}

// catalogue is what somebody may see, by name, and the roles that he has now.
func (c *Control) catalogue(id trust.Identity) ([]wire.Cluster, []wire.Role, *wire.Refusal) {
	record, refusal := c.live(id)
	if refusal != nil {
		return nil, nil, refusal
	}
	snapshot := c.o.Store.Snapshot()
	roles := c.roles(snapshot, record)
	rest, _ := c.standing(id, record, snapshot.Epoch, roles)
	list := []wire.Cluster{}
	for name, cluster := range snapshot.Clusters {
		if !snapshot.Policy.Visible(name, roles, c.now()) {
			continue
		}
		entry, err := c.entry(snapshot, name, cluster)
		if err != nil {
			c.log.Error("a cluster is left out of the catalogue", "cluster", name, "error", err)
			continue
		}
		// A revoked role gives nothing, but what it showed is not denied to be there:
		// whoever asks for it hears what he has lost.
		entry.Roles = rest
		list = append(list, entry)
	}
	slices.SortFunc(list, func(a, b wire.Cluster) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return list, roles, nil
}

func (c *Control) entry(snapshot *store.Snapshot, name wire.ClusterName, cluster *v1alpha1.TargetCluster) (wire.Cluster, error) {
	authority, err := c.o.Authorities.Cluster(name)
	if err != nil {
		return wire.Cluster{}, err
	}
	spec := cluster.Spec
	entry := wire.Cluster{
		Name: name, UID: authority.UID, CA: string(authority.CAPEM),
		DisplayName: spec.DisplayName, Description: spec.Description, Link: spec.Link,
		Hidden: spec.Hidden, Autorun: spec.Autorun, Labels: cluster.Labels,
		Server: "https://" + string(name) + "." + c.config().Domain,
		State:  wire.StateReachable, Access: string(spec.Access),
		Policy:     snapshot.Policy.Coverage(name, c.now()),
		ListenPort: int(spec.ListenPort), ListenPortFixed: spec.ListenPortFixed,
	}
	if entry.Access == "" {
		entry.Access = string(v1alpha1.AccessEnabled)
	}
	if !c.o.Reachable(name) {
		entry.State = wire.StateUnreachable
	}
	return entry, nil
}

// device answers with what a person may know of his own device.
func (c *Control) device(w http.ResponseWriter, r *http.Request) {
	p := peerOf(r)
	d, _ := c.o.Store.Snapshot().Device(p.identity.Device)
	writeJSON(w, http.StatusOK, deviceState(p.identity.Device, d))
}
