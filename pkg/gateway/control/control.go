package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/ca"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/gateway/verify"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// Options of Control.
type Options struct {
	// Config was defaulted and validated. It is asked for whenever something of it
	// is needed, and what it returns is never changed: what may change while the
	// gateway runs, changes by another answer.
	Config func() *v1alpha1.GatewayConfiguration
	// IssuerCA is a PEM bundle for the issuer; empty: the system's roots.
	IssuerCA []byte

	Authorities *ca.Authorities
	Store       *store.Store
	Registry    *revoke.Registry
	Audit       *audit.Log
	Metrics     *metrics.Metrics // may be nil
	Logger      *slog.Logger     // may be nil
	Now         func() time.Time // may be nil
	// Reachable reports whether a cluster can be used now; nil: it can.
	Reachable func(wire.ClusterName) bool
	// Foreign reports whether a name could be one of a further issuer's people or
	// groups, which nobody who logs in may have; nil: there are none.
	Foreign func(name string) bool
	// Transport replaces the way to the issuer in tests.
	Transport http.RoundTripper
}

// Control is an edge.Backend, for the name "control", and the handler of
// gw.DOMAIN. Make it with New.
type Control struct {
	o        Options
	config   func() *v1alpha1.GatewayConfiguration
	log      *slog.Logger
	now      func() time.Time
	verifier *verify.Verifier
	signer   jose.Signer
	acceptor *evidence.Acceptor
	gateway  http.Handler
	server   *http.Server
	inbox    *edge.Inbox

	checks, logins *budget
	// bodies of strangers that are being read.
	bodies *limit.Slots[netip.Prefix]
	// floods is how much of what strangers do is recorded.
	floods *rate.Limiter
	// garbage is how many of the streams that proved nothing are recorded: apart, so
	// that strangers do not hide what somebody in a tunnel does.
	garbage *rate.Limiter

	issuer *http.Client
	login  *authn.Login

	// changed is closed, and replaced, when laptops have something to learn.
	changed atomic.Pointer[chan struct{}]
	// draining is closed when event streams shall end.
	draining  chan struct{}
	drainOnce sync.Once

	// records serialises read-modify-write of session records.
	records locks
	// shares serialises what one person adds to the state.
	shares locks
	// shown is the latest certificate that came of each session, its serial.
	shown sync.Map // by wire.SessionID

	mu    sync.Mutex
	peers map[net.Conn]*peer // by the *tls.Conn
}

var _ edge.Backend = (*Control)(nil)

// New prepares Control; it starts and fetches nothing, so that it works while
// the issuer does not.
func New(o Options) (*Control, error) {
	if o.Config == nil || o.Authorities == nil || o.Store == nil || o.Registry == nil || o.Audit == nil {
		return nil, errors.New("control: configuration, authorities, store, registry and audit must be set")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Foreign == nil {
		o.Foreign = func(string) bool { return false }
	}
	if o.Reachable == nil {
		o.Reachable = func(wire.ClusterName) bool { return true }
	}
	c := &Control{
		o: o, config: o.Config, log: o.Logger, now: o.Now,
		verifier: verify.New(o.Config().TrustDomain, o.Authorities.MAC, o.Now),
		inbox:    edge.NewInbox(),
		draining: make(chan struct{}),
		peers:    make(map[net.Conn]*peer),
	}
	var err error
	if c.signer, err = o.Authorities.TokenSigner(); err != nil {
		return nil, fmt.Errorf("control: %v", err)
	}
	perMinute := func() int { return c.config().Limits.LoginsPerSourcePerMinute }
	c.checks, c.logins = newBudget(perMinute, o.Now), newBudget(perMinute, o.Now)
	c.bodies = newBodies()
	c.floods, c.garbage = rate.NewLimiter(floodRecords, floodRecords), rate.NewLimiter(floodRecords, floodRecords)
	c.acceptor = &evidence.Acceptor{
		TrustDomain: o.Config().TrustDomain,
		Audience:    o.Config().TrustDomain,
		ServerName:  wire.ControlName,
		Roots:       func() *x509.CertPool { return o.Authorities.Roots(trust.Trust) },
		Certificate: trust.GetCertificate(o.Authorities.ServerLeaf(wire.ControlName)),
		Now:         o.Now,
		Replay:      new(evidence.ReplayCache),
		Chains:      new(evidence.ChainCache),
	}
	changed := make(chan struct{})
	c.changed.Store(&changed)
	if err := c.openIssuer(); err != nil {
		return nil, fmt.Errorf("control: %v", err)
	}
	c.gateway = c.gatewayHandler()
	c.server = c.streamServer()
	return c, nil
}

// Gateway is the handler of gw.DOMAIN.
func (c *Control) Gateway() http.Handler { return c.gateway }

// Issuer is "iss" of the access tokens of a gateway with this domain.
func Issuer(domain string) string { return "https://" + wire.GatewayLabel + "." + domain }

// Run serves streams, keeps the issuer's keys fresh, holds sessions against
// every change of the state, and ends streams whose certificate has ended, until
// ctx ends. Then nothing of it is left.
func (c *Control) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { _ = c.server.Serve(c.inbox) }) // ends by Close or Drain
	running.Go(func() { _ = c.login.Run(ctx) })
	running.Go(func() { c.follow(ctx) })
	running.Go(func() { c.sweep(ctx) })
	<-ctx.Done()
	c.server.Close()
	running.Wait()
	c.issuer.CloseIdleConnections()
	return nil
}

// Drain ends event streams, lets requests under way finish and takes no new
// streams, until all have gone or ctx ends.
func (c *Control) Drain(ctx context.Context) {
	c.drainOnce.Do(func() { close(c.draining) })
	_ = c.server.Shutdown(ctx) // what is left then, Run closes
}

// Changed says that the state, or what can be reached, is another now. Laptops
// that hold an event stream are told. It does not block.
func (c *Control) Changed() {
	next := make(chan struct{})
	close(*c.changed.Swap(&next))
}

// retryEvery is how long to wait when the state could not be written.
const retryEvery = time.Second

// follow holds every live session against each state.
func (c *Control) follow(ctx context.Context) {
	for {
		changed := *c.changed.Load() // before looking, so that no change falls between
		var retry <-chan time.Time
		if err := c.reevaluate(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("sessions could not be held against the new state", "error", err)
			// What it took away without writing it is itself a change of the state.
			changed, retry = nil, time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
		}
	}
}

// source is where a request came from, for budgets and the audit log.
type source struct {
	addr      netip.Addr
	userAgent string
}

func sourceOf(r *http.Request) source {
	s := source{userAgent: audit.Clip(r.UserAgent(), 128)}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.addr = ap.Addr().Unmap()
	}
	return s
}

func (s source) String() string {
	if !s.addr.IsValid() {
		return ""
	}
	return s.addr.String()
}
