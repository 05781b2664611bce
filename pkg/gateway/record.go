package gateway

import (
	"strconv"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/wire"
)

// longestFault bounds what a record quotes of a fault, in bytes: a configuration
// can have thousands.
const longestFault = 4 << 10

// record writes an event of the gateway itself. Nothing waits for it: what is
// taken away must not depend on a log.
func (g *Gateway) record(r audit.Record) {
	if g.audit == nil {
		g.early = append(g.early, r) // one goroutine so far
		return
	}
	_ = g.audit.Event(r)
}

// recordReload: version is that of the objects in force, or of the file read.
func (g *Gateway) recordReload(what, version string, err error) {
	r := audit.Record{Event: audit.EventReload, Decision: audit.Allowed, Version: version, Detail: map[string]string{"what": what}}
	if err != nil {
		r.Decision, r.Error = audit.Refused, audit.Clip(err.Error(), longestFault)
	}
	g.record(r)
}

func (g *Gateway) recordImport(i store.Import) {
	spec := &i.Revocation.Spec
	kind, value, _ := spec.Target()
	r := audit.Record{
		Event: audit.EventRevoked, Decision: audit.Refused, Reason: wire.ReasonRevoked, Message: spec.Reason,
		Device: wire.DeviceID(spec.Device), Session: wire.SessionID(spec.Session), Cluster: wire.ClusterName(spec.Cluster),
		Detail: map[string]string{
			"by": spec.By, "file": i.File, "name": i.Revocation.Name, "target": kind + " " + value,
			"epoch": i.Revocation.Status.Epoch, "durable": strconv.FormatBool(i.Durable),
		},
	}
	if spec.User != "" {
		r.User = &wire.User{Name: wire.Username(spec.User)}
	}
	g.record(r)
}
