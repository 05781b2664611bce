// Package gateway wires zt-gateway: control, edge and one enforcement point per
// cluster, over one store. It holds the two things that an auditor reads first:
// who is given what (this file), and the chain that every request walks
// (pipeline.go).
//
// Nothing is started or listened to before everything was read and validated; a
// fault at start ends the process. Later faults in what people write leave the
// old state in force. When the process is asked to end it says so first on
// /readyz, then takes nothing new, lets short requests finish, tells long ones
// why, and ends them at the drain limit (TestV197).
package gateway

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/control"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// firstRetry and longestRetry bound the pause before a cluster is tried again
// whose settings could not be used: a file may be late, or a disk full.
const (
	firstRetry   = 5 * time.Second
	longestRetry = time.Minute
)

// probePeriod is how often health checks without TLS are summed up in the log.
const probePeriod = time.Minute

// Config is what a gateway is made of.
type Config struct {
	// Configuration is defaulted and validated; its paths are absolute.
	Configuration *v1alpha1.GatewayConfiguration
	// File is where Configuration came from, and Parse makes one of what stands in
	// it later; both may be unset, and then nothing of it changes while the gateway
	// runs.
	File string
	// Print is that of File (files.Print) when Configuration was read: what was
	// written since is loaded at the first look. Empty: nothing was.
	Print  string
	Parse  func(data []byte) (*v1alpha1.GatewayConfiguration, error)
	Logger *slog.Logger     // may be nil
	Now    func() time.Time // may be nil
}

// Gateway is the whole process but its command line. Make it with New.
type Gateway struct {
	config atomic.Pointer[v1alpha1.GatewayConfiguration]
	parse  func(data []byte) (*v1alpha1.GatewayConfiguration, error) // nil without a file
	log    *slog.Logger
	now    func() time.Time

	metrics     *metrics.Metrics
	probes      *metrics.Probes
	store       *store.Store
	audit       *audit.Log
	early       []audit.Record // what happened before audit was open
	authorities *ca.Authorities
	registry    *revoke.Registry
	tokens      *authn.Tokens
	further     *authn.FurtherIssuers // nil without furtherIssuersFile
	control     *control.Control
	edge        *edge.Edge
	clusters    *clusters
	certificate *certificateFile // nil without a certificate of its own for gw.
	files       watchedFiles
	admin       *admin
	// renewed holds a signal when a cluster's authority is another than it was.
	renewed chan struct{}

	public, adminListener net.Listener
}

// New opens state, keys, log and listeners, and makes every part. It serves
// nothing yet. lifetime bounds background work of libraries; Run comes next, or
// Close.
func New(lifetime context.Context, c Config) (_ *Gateway, err error) {
	g := &Gateway{log: c.Logger, now: c.Now, parse: c.Parse, renewed: make(chan struct{}, 1)}
	g.config.Store(c.Configuration)
	g.files.add("configuration", g.reloadConfiguration, c.File)
	if c.File != "" && c.Print != "" {
		g.files.all[0].seen = c.Print
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	g.metrics = metrics.New()
	g.probes = metrics.NewProbes(g.metrics)
	g.registry = revoke.New()
	for _, open := range []func(context.Context) error{
		g.openState, g.openTokens, g.openControl, g.openClusters, g.openEdge, g.listen,
	} {
		if err := open(lifetime); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// openState takes the lock on state/ first: whoever else holds it owns the keys
// and the log, too.
func (g *Gateway) openState(context.Context) (err error) {
	g.store, err = store.Open(g.c().Directory, store.Options{
		Logger: g.log, Now: g.now,
		OnReload: func(version string, err error) {
			g.metrics.Reload("objects", err)
			g.recordReload("objects", version, err)
		},
		OnImport: g.recordImport,
		OnWrite: func(h store.Health) {
			g.metrics.Condition("state", "WriteFailing", h.Failing != nil)
			g.metrics.Condition("state", "NotDurable", h.NotDurable)
		},
	})
	if err != nil {
		return err
	}
	state := filepath.Join(g.c().Directory, "state")
	if g.authorities, err = ca.Open(state, g.c().TrustDomain, g.c().Domain, g.now); err != nil {
		return err
	}
	if g.audit, err = audit.Open(g.c().Audit.File, audit.Options{Now: g.now, Failed: func(err error) {
		g.metrics.AuditLost()
		g.log.Error("audit log", "error", err)
	}}); err != nil {
		return err
	}
	for _, r := range g.early {
		_ = g.audit.Event(r)
	}
	g.early = nil
	snapshot := g.store.Snapshot()
	g.registry.Apply(snapshot.Revocations, snapshot.Epoch)
	g.metrics.Epoch(snapshot.Epoch)
	return nil
}

func (g *Gateway) openTokens(lifetime context.Context) (err error) {
	checked := func(kind string) func(string) {
		return func(result string) { g.metrics.Token(kind, result) }
	}
	g.tokens = authn.NewTokens(authn.TokensOptions{
		Issuer:         g.tokenIssuer(),
		Keys:           func() jose.JSONWebKeySet { return g.authorities.TokenKeys() },
		UsernamePrefix: g.c().OIDC.UsernamePrefix,
		Now:            g.now,
		Checked:        checked("control"),
	})
	file := g.c().FurtherIssuersFile
	if file == "" {
		return nil
	}
	g.files.add("issuers", g.reloadIssuers, file)
	read, err := files.Read(lifetime, file)
	if err != nil {
		return fmt.Errorf("furtherIssuersFile: %w", err)
	}
	g.further, err = authn.NewFurtherIssuers(lifetime, read.Data[0], authn.FurtherOptions{
		LoginClientID:  g.c().OIDC.ClientID,
		ControlIssuer:  g.tokenIssuer(),
		UsernamePrefix: g.c().OIDC.UsernamePrefix,
		Now:            g.now,
		Fetched:        g.metrics.KeyFetch,
		Checked:        checked("further"),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// c is the configuration as it is in force.
func (g *Gateway) c() *v1alpha1.GatewayConfiguration { return g.config.Load() }

// tokenIssuer is the "iss" of control's access tokens.
func (g *Gateway) tokenIssuer() string { return control.Issuer(g.c().Domain) }

func (g *Gateway) gatewayName() string { return wire.GatewayLabel + "." + g.c().Domain }

func (g *Gateway) openControl(lifetime context.Context) (err error) {
	var issuerCA []byte
	if file := g.c().OIDC.CertificateAuthorityFile; file != "" {
		g.files.add("issuer authority", func(data [][]byte) error { return g.renewIssuerCA(issuerCA, data[0]) }, file)
		read, err := files.Read(lifetime, file)
		if err != nil {
			return fmt.Errorf("oidc.certificateAuthorityFile: %w", err)
		}
		issuerCA = read.Data[0]
	}
	g.control, err = control.New(control.Options{
		Config:      g.config.Load,
		IssuerCA:    issuerCA,
		Authorities: g.authorities,
		Store:       g.store,
		Registry:    g.registry,
		Audit:       g.audit,
		Metrics:     g.metrics,
		Logger:      g.log,
		Now:         g.now,
		Foreign:     g.further.MayName,
		Reachable:   func(name wire.ClusterName) bool { return g.clusters.reachable(name) },
	})
	return err
}

func (g *Gateway) openClusters(lifetime context.Context) error {
	g.clusters = &clusters{make: g.newKube, log: g.log, metrics: g.metrics}
	return g.clusters.sync(lifetime, g.store.Snapshot().Clusters)
}

// newKube makes the enforcement point of one cluster.
func (g *Gateway) newKube(cluster *v1alpha1.TargetCluster) (*Kube, error) {
	authority, err := g.authorities.Cluster(wire.ClusterName(cluster.Name))
	if err != nil {
		return nil, err
	}
	return NewKube(KubeOptions{
		Cluster:     cluster,
		UID:         authority.UID,
		Domain:      g.c().Domain,
		TrustDomain: g.c().TrustDomain,
		Certificate: trust.GetCertificate(authority.Leaf),
		TrustRoots:  g.trustRoots,
		Snapshot:    g.store.Snapshot,
		Registry:    g.registry,
		Facts:       g.control.Facts,
		Tokens:      g.tokens,
		Further:     g.further,
		Audit:       g.audit,
		Metrics:     g.metrics,
		Logger:      g.log,
		Limits:      func() v1alpha1.Limits { return g.c().Limits },
		Now:         g.now,
		Changed:     g.control.Changed,
	})
}

func (g *Gateway) trustRoots() *x509.CertPool { return g.authorities.Roots(trust.Trust) }

func (g *Gateway) openEdge(lifetime context.Context) (err error) {
	aliases := g.aliases()
	names := append([]string{g.gatewayName()}, aliases...)
	certificate := trust.GetCertificate(g.authorities.ServerLeaf(names...))
	if pair := g.c().Certificate; pair != nil {
		g.certificate = &certificateFile{certFile: pair.CertFile, keyFile: pair.KeyFile, names: names, now: g.now}
		g.files.add("certificate", g.certificate.load, pair.CertFile, pair.KeyFile)
		if err := g.certificate.open(lifetime); err != nil {
			return err
		}
		certificate = g.certificate.get
	}
	g.edge, err = edge.New(edge.Options{
		Domain:             g.c().Domain,
		Aliases:            aliases,
		TrustDomain:        g.c().TrustDomain,
		GatewayCertificate: certificate,
		TunnelCertificate:  trust.GetCertificate(g.authorities.ServerLeaf(wire.TunnelLabel + "." + g.c().Domain)),
		Roots:              g.trustRoots,
		Gateway:            g.control.Gateway(),
		Control:            g.control,
		Cluster:            g.clusters.backend,
		Direct:             g.directBackend,
		Registry:           g.registry,
		Facts:              g.control.Facts,
		Admit:              g.control.Admit,
		TunnelsPerDevice:   func() int { return g.c().Limits.TunnelsPerDevice },
		Audit:              g.audit,
		Metrics:            g.metrics,
		Probes:             g.probes,
		Logger:             g.log,
		Now:                g.now,
	})
	return err
}

// aliases are the other names under which laptops may know gw.DOMAIN: the host
// of the public address, and the address listened on when it is one.
func (g *Gateway) aliases() []string {
	var names []string
	for _, address := range []string{g.c().PublicAddress, g.c().Listen} {
		host, _, err := net.SplitHostPort(address)
		if err != nil || host == "" || host == g.gatewayName() {
			continue
		}
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			continue
		}
		names = append(names, host)
	}
	return names
}

// directBackend is the enforcement point of a cluster whose direct name is on.
func (g *Gateway) directBackend(name wire.ClusterName) edge.Backend {
	if cluster := g.store.Snapshot().Clusters[name]; cluster == nil || !cluster.Spec.Direct {
		return nil
	}
	return g.clusters.backend(name)
}

func (g *Gateway) listen(context.Context) (err error) {
	if g.public, err = net.Listen("tcp", g.c().Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if g.adminListener, err = net.Listen("tcp", g.c().Metrics.Listen); err != nil {
		return fmt.Errorf("metrics.listen: %w", err)
	}
	g.admin = &admin{metrics: g.metrics.Handler()}
	return nil
}

// Address is where the public listener is.
func (g *Gateway) Address() net.Addr { return g.public.Addr() }

// Run serves until ctx ends, and then drains. It returns nil after a drain.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.Close()
	// Parts live until the drain is over, not until ctx ends.
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	var running sync.WaitGroup
	failed := make(chan error, 8)
	start := func(name string, run func(context.Context) error) {
		running.Go(func() {
			if err := run(parts); err != nil && parts.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	g.clusters.start(parts)
	start("store", g.store.Run)
	start("control", g.control.Run)
	start("metrics listener", func(ctx context.Context) error { return g.admin.serve(ctx, g.adminListener) })
	start("state", func(ctx context.Context) error { g.follow(ctx); return nil })
	start("probes", func(ctx context.Context) error { g.probes.Run(ctx, g.log, probePeriod); return nil })
	if g.further != nil {
		start("further issuers", g.further.Run)
	}
	start("files", func(ctx context.Context) error { g.watchFiles(ctx); return nil })
	edgeDone := make(chan error, 1)
	go func() { edgeDone <- g.edge.Serve(parts, g.public) }()

	_ = g.audit.Event(audit.Record{Event: audit.EventStarted})
	g.admin.ready.Store(true)
	g.log.Info("serving", "address", g.public.Addr().String(), "domain", g.c().Domain, "metrics", g.adminListener.Addr().String())

	var err error
	select {
	case <-ctx.Done():
		g.drain(context.WithoutCancel(ctx), edgeDone)
	case err = <-failed:
	case err = <-edgeDone:
		if err == nil {
			err = errors.New("the public listener ended")
		}
	}
	stop()
	g.clusters.stop()
	running.Wait()
	_ = g.audit.Event(audit.Record{Event: audit.EventStopped})
	return err
}

// follow brings every change of the state to those who hold live things.
func (g *Gateway) follow(ctx context.Context) {
	changed := g.store.Subscribe(ctx)
	retry, pause := time.NewTimer(0), time.Duration(0) // for what could not be made
	defer retry.Stop()
	<-retry.C
	for {
		// At first without waiting: something may have changed before anybody looked.
		snapshot := g.store.Snapshot()
		if cut := g.registry.Apply(snapshot.Revocations, snapshot.Epoch); cut > 0 {
			g.log.Info("revocation ended what was live", "cut", cut, "epoch", snapshot.Epoch.String())
		}
		g.metrics.Epoch(snapshot.Epoch)
		if err := g.clusters.sync(ctx, snapshot.Clusters); err != nil {
			g.metrics.Reload("clusters", err)
			pause = min(max(firstRetry, 2*pause), longestRetry)
			retry.Reset(pause)
			g.log.Error("a cluster's settings cannot be used", "error", err, "again", pause)
		} else {
			retry.Stop()
			pause = 0
		}
		g.control.Changed()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-g.renewed:
		case <-retry.C:
		}
	}
}

// Close lets go of what New opened. Run calls it.
func (g *Gateway) Close() {
	for _, l := range []net.Listener{g.public, g.adminListener} {
		if l != nil {
			l.Close()
		}
	}
	if g.audit != nil {
		_ = g.audit.Close()
	}
	if g.store != nil {
		_ = g.store.Close()
	}
}
