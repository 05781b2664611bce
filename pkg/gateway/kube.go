package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/gateway/stream"
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

	// Certificate serves CLUSTER.DOMAIN and CLUSTER.direct.DOMAIN from the
	// cluster's own CA.
	Certificate trust.GetCertificate
	// TrustRoots verify peer proofs.
	TrustRoots func() *x509.CertPool

	Snapshot func() *store.Snapshot
	Registry *revoke.Registry
	// Facts of a trust certificate for Registry; nil: what the certificate says.
	Facts func(trust.Identity) revoke.Facts
	// Tokens verifies control's tokens; Further those of other issuers, nil
	// where there are none.
	Tokens  *authn.Tokens
	Further *authn.FurtherIssuers

	Audit   *audit.Log
	Metrics *metrics.Metrics // may be nil
	Logger  *slog.Logger     // may be nil
	// Limits are asked for at every request; nil: the defaults.
	Limits func() v1alpha1.Limits
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Changed is called after Reachable has changed; may be nil, must not block.
	Changed func()
}

// Validate reports all that is missing at once.
func (o *KubeOptions) Validate() error {
	var faults []error
	demand := func(ok bool, what string) {
		if !ok {
			faults = append(faults, errors.New("kube part: no "+what))
		}
	}
	demand(o.Cluster != nil && o.Cluster.Name != "", "cluster")
	demand(o.UID != "", "cluster UID")
	demand(o.Domain != "", "domain")
	demand(o.TrustDomain != "", "trust domain")
	demand(o.Certificate != nil, "server certificate")
	demand(o.TrustRoots != nil, "trust roots")
	demand(o.Snapshot != nil, "state")
	demand(o.Registry != nil, "registry of revocations")
	demand(o.Tokens != nil, "token keys")
	demand(o.Audit != nil, "audit log")
	return errors.Join(faults...)
}

// Kube is the enforcement point in front of one kube-apiserver. It is an
// edge.Backend.
type Kube struct {
	o          KubeOptions
	name       wire.ClusterName
	host       string // CLUSTER.DOMAIN
	directHost string // CLUSTER.direct.DOMAIN
	log        *slog.Logger

	acceptor   *evidence.Acceptor
	authn      authn.Authenticator
	limiter    *limit.Limiter
	infos      *apirequest.RequestInfoFactory
	objects    *objectReader
	held       *limit.Slots[string] // bodies that objects looks into, by person
	upstream   *stream.Upstream
	proxy      *stream.Proxy
	prover     *impersonate.Prover
	links      links
	judgements judgements
	server     *http.Server
	inbox      *edge.Inbox
	// requestTime is how long a request may take that is not long-running.
	requestTime time.Duration
	// What is recorded of streams that proved nothing.
	garbage, directGarbage *rate.Limiter
	// strangers is what is recorded of requests of nobody.
	strangers *rate.Limiter

	// made is the object that this Kube was made for, where that is known, and same
	// the last one that was found to lead the same way.
	made *v1alpha1.TargetCluster
	same atomic.Pointer[v1alpha1.TargetCluster]

	mu        sync.Mutex
	health    health
	checked   time.Time // of the last proof
	provenFor string    // the version of the policies that it was for
}

var _ edge.Backend = (*Kube)(nil)

// Where Kubernetes mounts a pod's own service account.
const (
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	accountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// ErrNoPod is inCluster where the gateway runs in no cluster.
var ErrNoPod = errors.New("inCluster is set, but this is no pod: KUBERNETES_SERVICE_HOST is empty")

// NewKube reads the certificates that it needs, and starts and opens nothing.
func NewKube(o KubeOptions) (*Kube, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Facts == nil {
		o.Facts = edge.CertificateFacts
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Limits == nil {
		o.Limits = func() v1alpha1.Limits { return v1alpha1.Limits{} }
	}
	upstream, err := newUpstream(o.Cluster, o.Now)
	if err != nil {
		return nil, fmt.Errorf("cluster %q: %w", o.Cluster.Name, err)
	}
	objects, err := newObjectReader()
	if err != nil {
		return nil, err
	}
	name := wire.ClusterName(o.Cluster.Name)
	k := &Kube{
		o:          o,
		name:       name,
		host:       o.Cluster.Name + "." + o.Domain,
		directHost: o.Cluster.Name + "." + wire.DirectLabel + "." + o.Domain,
		log:        o.Logger.With("cluster", o.Cluster.Name),
		limiter: limit.New(limit.Options{
			Capacity: func(c limit.Class) int {
				switch c {
				case limit.Read:
					return o.Limits().ReadsInFlight
				case limit.Write:
					return o.Limits().WritesInFlight
				}
				return 0 // the default
			},
			Changed: func(c limit.Class) func(int) { return o.Metrics.InFlight(name, c.String()) },
		}),
		infos:    newRequestInfoFactory(),
		objects:  objects,
		held:     newHeldObjects(),
		upstream: upstream,
		proxy:    stream.NewProxy(upstream),
		prover:   &impersonate.Prover{Client: upstream.Own(), Base: upstream.Base()},
		inbox:    edge.NewInbox(), requestTime: requestTime,
		garbage: rate.NewLimiter(garbageRecords, garbageRecords), directGarbage: rate.NewLimiter(garbageRecords, garbageRecords),
		strangers: rate.NewLimiter(strangerRecords, 10*strangerRecords),
	}
	k.authn = o.Tokens.For(o.UID, o.Further)
	k.acceptor = &evidence.Acceptor{
		TrustDomain: o.TrustDomain,
		Audience:    string(o.UID),
		ServerName:  k.host,
		Roots:       o.TrustRoots,
		Certificate: o.Certificate,
		Direct:      k.directTLS,
		Now:         o.Now,
		Replay:      &evidence.ReplayCache{},
		Chains:      &evidence.ChainCache{},
	}
	k.links.init(k)
	k.server = k.newServer()
	return k, nil
}

func newUpstream(cluster *v1alpha1.TargetCluster, now func() time.Time) (*stream.Upstream, error) {
	spec := &cluster.Spec
	address, caFile, tokenFile := spec.URL, spec.CertificateAuthorityFile, spec.TokenFile
	if spec.InCluster {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, ErrNoPod
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		address = "https://" + host + ":" + port
		if caFile == "" && spec.CertificateAuthorityData == "" {
			caFile = accountCA
		}
		if tokenFile == "" {
			tokenFile = accountToken
		}
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	roots, err := upstreamRoots(caFile, spec.CertificateAuthorityData)
	if err != nil {
		return nil, err
	}
	if tokenFile == "" {
		return nil, errors.New("tokenFile is not set")
	}
	return stream.NewUpstream(stream.Options{
		URL:        u,
		Roots:      roots,
		ServerName: spec.TLSServerName,
		Token:      impersonate.NewTokenFile(tokenFile, now),
	})
}

func upstreamRoots(file, data string) (*x509.CertPool, error) {
	if file != "" {
		read, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("certificateAuthorityFile: %w", err)
		}
		data = string(read)
	}
	if data == "" {
		return nil, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(data)) {
		return nil, errors.New("the certificate authority holds no certificate")
	}
	return roots, nil
}

// outdated says why nobody is served on the way that k was made for, nil when it
// is the one of s. It is for the moment until another Kube takes over, which may
// not come when what is written cannot be used.
func (k *Kube) outdated(s *store.Snapshot) *wire.Refusal {
	if k.made == nil || s == nil {
		return nil
	}
	now := s.Clusters[k.name]
	if now == nil || now == k.same.Load() {
		return nil // one that is gone is the policy's to refuse
	}
	if !SameUpstream(k.made, now) {
		return wire.Refuse(wire.ReasonClusterDown, "try again in a minute, and if it stays so tell your administrator",
			"the cluster's settings have changed, and the gateway does not use the new ones yet")
	}
	k.same.Store(now)
	return nil
}

// SameUpstream reports whether b is reached exactly as a, so that a Kube made
// for a can go on serving b.
func SameUpstream(a, b *v1alpha1.TargetCluster) bool {
	way := func(c *v1alpha1.TargetCluster) v1alpha1.TargetClusterSpec {
		return v1alpha1.TargetClusterSpec{
			InCluster: c.Spec.InCluster, URL: c.Spec.URL, TLSServerName: c.Spec.TLSServerName, TokenFile: c.Spec.TokenFile,
			CertificateAuthorityFile: c.Spec.CertificateAuthorityFile, CertificateAuthorityData: c.Spec.CertificateAuthorityData,
			Impersonation: c.Spec.Impersonation,
		}
	}
	return a.Name == b.Name && reflect.DeepEqual(way(a), way(b))
}

// Run serves the accepted streams and watches over the way to the cluster and
// over the rights of the gateway's own account there, until ctx ends. Until the
// first proof has succeeded every request is refused.
func (k *Kube) Run(ctx context.Context) error {
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = k.server.Serve(k.inbox) // ends when the inbox does
	}()
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		k.links.sweep(ctx)
	}()
	k.watch(ctx)
	<-swept
	k.links.cutAll(wire.Refuse(wire.ReasonShuttingDown, "try again", "the gateway is shutting down"))
	k.links.wait(cutGrace + time.Second)
	k.server.Close()
	<-served
	k.links.wait(cutGrace + time.Second)
	k.upstream.Close()
	return nil
}

// Drain lets short requests end, tells long ones why and ends them when ctx
// does. No new connection is served from the call on. Run goes on.
func (k *Kube) Drain(ctx context.Context) error {
	err := k.server.Shutdown(ctx)
	k.links.until(ctx) // Shutdown does not wait for upgraded streams
	k.links.cutAll(wire.Refuse(wire.ReasonShuttingDown, "try again", "the gateway is shutting down"))
	k.links.wait(cutGrace + time.Second)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// cluster is the object as it stands now, nil when it is gone.
func (k *Kube) cluster(s *store.Snapshot) *v1alpha1.TargetCluster {
	if s == nil {
		return nil
	}
	return s.Clusters[k.name]
}

// needs are what the account must be able to do, by the state of now, the names
// that it would be asked for one by one, and the state's version.
func (k *Kube) needs() (n impersonate.Needs, users []string, version string) {
	s := k.o.Snapshot()
	cluster := k.cluster(s)
	if cluster == nil {
		return impersonate.Needs{Profile: k.o.Cluster.Spec.Impersonation}, nil, ""
	}
	n = impersonate.NeedsOf(cluster, slices.Collect(maps.Keys(s.Roles)), slices.Collect(maps.Values(s.Policies)))
	if k.o.Further != nil {
		n.ExtraKeys = k.o.Further.ExtraKeys()
	}
	for _, role := range s.Roles {
		for _, user := range role.Spec.Users {
			if !strings.Contains(user, "*") && len(users) < maxAsked {
				users = append(users, k.o.Tokens.UsernamePrefix()+user)
			}
		}
	}
	return n, users, s.Version
}

// maxAsked bounds the questions about single users.
const maxAsked = 50
