package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kube-zt/zt/pkg/wire"
)

// Metrics of one gateway process. All methods are safe for concurrent use and
// do nothing on a nil *Metrics, so that a room can be tested without one.
type Metrics struct {
	registry *prometheus.Registry

	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	refusals    *prometheus.CounterVec
	inFlight    *prometheus.GaugeVec
	streams     *prometheus.GaugeVec
	streamBytes *prometheus.CounterVec
	connections *prometheus.GaugeVec
	cuts        *prometheus.CounterVec
	wouldDeny   *prometheus.CounterVec
	panics      *prometheus.CounterVec
	upstream    *prometheus.CounterVec
	reachable   *prometheus.GaugeVec
	condition   *prometheus.GaugeVec
	tokens      *prometheus.CounterVec
	keyFetches  *prometheus.CounterVec
	keyAge      *prometheus.GaugeVec
	auditLost   prometheus.Counter
	reloads     *prometheus.CounterVec
	stateEpoch  *prometheus.GaugeVec
	logins      *prometheus.CounterVec
	issued      *prometheus.CounterVec
	handshakes  *prometheus.CounterVec
	probes      prometheus.Counter
}

// New makes a registry of its own with all series of the gateway in it.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "zt", Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "zt", Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}

	m.requests = counter("requests_total", "Requests to a cluster by verb and HTTP status.", "cluster", "verb", "code")
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "zt", Name: "request_duration_seconds",
		Help:    "Time from a request's header to its end; watches and streams are not in it.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
	}, []string{"cluster", "verb"})
	m.registry.MustRegister(m.duration)
	m.refusals = counter("refusals_total", "Refusals by the part of the gateway and the reason.", "part", "reason")
	m.inFlight = gauge("requests_in_flight", "Requests in flight by class: read, write, long.", "cluster", "class")
	m.streams = gauge("streams", "Open upgraded streams (exec, attach, port-forward, proxy).", "cluster")
	m.streamBytes = counter("stream_bytes_total", "Bytes through upgraded streams; in is from the client.", "cluster", "direction")
	m.connections = gauge("connections", "Open connections by part and regime.", "part", "regime")
	m.cuts = counter("cuts_total", "Connections and requests ended by the gateway, by reason.", "part", "reason")
	m.wouldDeny = counter("would_deny_total", "Requests that passed only because enforcement is Permissive.", "cluster")
	m.panics = counter("panics_total", "Handlers that panicked and were recovered.", "part")
	m.upstream = counter("upstream_errors_total", "Failures of the leg to a kube-apiserver, by kind.", "cluster", "kind")
	m.reachable = gauge("cluster_reachable", "1 when the kube-apiserver answers and the gateway's account is proven.", "cluster")
	m.condition = gauge("condition", "1 while a condition that needs the operator holds.", "subject", "condition")
	m.tokens = counter("token_checks_total", "Checks of bearer tokens: control, further; hit, ok, refused.", "kind", "result")
	m.keyFetches = counter("key_fetches_total", "Fetches of an issuer's signing keys.", "issuer", "result")
	m.keyAge = gauge("key_fetched_timestamp_seconds", "When an issuer's signing keys were last fetched.", "issuer")
	m.auditLost = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "zt", Name: "audit_write_failures_total", Help: "Audit records that could not be written."})
	m.registry.MustRegister(m.auditLost)
	m.reloads = counter("reloads_total", "Reloads by source and result; after an error the old state stays.", "source", "result")
	m.stateEpoch = gauge("state_epoch", "Generation and sequence of the state in use.", "part")
	m.logins = counter("logins_total", "Steps of a login by result: ok or the reason of refusal.", "step", "result")
	m.issued = counter("issued_total", "Credentials issued: certificate, renewal, token.", "kind")
	m.handshakes = counter("handshake_failures_total", "TLS handshakes that failed, by regime and cause.", "regime", "cause")
	m.probes = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "zt", Name: "empty_connections_total", Help: "Connections closed before a ClientHello: health checks of load balancers."})
	m.registry.MustRegister(m.probes)

	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the registry in Prometheus' formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Verb reduces what a client may choose to a closed set.
func Verb(verb string) string {
	switch verb {
	case "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy", "connect":
		return verb
	default:
		return "other"
	}
}

// Request counts a request to a cluster that has ended. Long-running ones are
// left out of the duration.
func (m *Metrics) Request(cluster wire.ClusterName, verb string, code int, d time.Duration, long bool) {
	if m == nil {
		return
	}
	verb = Verb(verb)
	m.requests.WithLabelValues(string(cluster), verb, codeText(code)).Inc()
	if !long {
		m.duration.WithLabelValues(string(cluster), verb).Observe(d.Seconds())
	}
}

// codeText spares the usual codes an allocation.
func codeText(code int) string {
	switch code {
	case http.StatusOK:
		return "200"
	case http.StatusCreated:
		return "201"
	case http.StatusForbidden:
		return "403"
	case http.StatusNotFound:
		return "404"
	case http.StatusSwitchingProtocols:
		return "101"
	default:
		if code < 100 || code > 599 {
			return "other"
		}
		return strconv.Itoa(code)
	}
}

// Refused counts a refusal. Part is a name like "kube", "edge" or "control".
func (m *Metrics) Refused(part string, reason wire.Reason) {
	if m != nil {
		m.refusals.WithLabelValues(part, string(reason)).Inc()
	}
}

// InFlight returns what adds to the requests in flight of a class. It looks the
// series up once and not for each request.
func (m *Metrics) InFlight(cluster wire.ClusterName, class string) func(delta int) {
	if m == nil {
		return func(int) {}
	}
	gauge := m.inFlight.WithLabelValues(string(cluster), class)
	return func(delta int) { gauge.Add(float64(delta)) }
}

// Stream adds delta to the open upgraded streams.
func (m *Metrics) Stream(cluster wire.ClusterName, delta int) {
	if m != nil {
		m.streams.WithLabelValues(string(cluster)).Add(float64(delta))
	}
}

// StreamBytes counts what went through an upgraded stream.
func (m *Metrics) StreamBytes(cluster wire.ClusterName, in, out int64) {
	if m != nil {
		m.streamBytes.WithLabelValues(string(cluster), "in").Add(float64(in))
		m.streamBytes.WithLabelValues(string(cluster), "out").Add(float64(out))
	}
}

// Connection adds delta to the open connections of a part.
func (m *Metrics) Connection(part, regime string, delta int) {
	if m != nil {
		m.connections.WithLabelValues(part, regime).Add(float64(delta))
	}
}

// Cut counts something live that the gateway ended.
func (m *Metrics) Cut(part string, reason wire.Reason) {
	if m != nil {
		m.cuts.WithLabelValues(part, string(reason)).Inc()
	}
}

// WouldDeny counts a request that Permissive let pass.
func (m *Metrics) WouldDeny(cluster wire.ClusterName) {
	if m != nil {
		m.wouldDeny.WithLabelValues(string(cluster)).Inc()
	}
}

// Panic counts a recovered panic.
func (m *Metrics) Panic(part string) {
	if m != nil {
		m.panics.WithLabelValues(part).Inc()
	}
}

// Upstream counts a failure of the leg to a kube-apiserver: dial, timeout,
// aborted, credential, redirect, upgrade.
func (m *Metrics) Upstream(cluster wire.ClusterName, kind string) {
	if m != nil {
		m.upstream.WithLabelValues(string(cluster), kind).Inc()
	}
}

// Reachable sets whether a cluster can be used.
func (m *Metrics) Reachable(cluster wire.ClusterName, ok bool) {
	if m != nil {
		m.reachable.WithLabelValues(string(cluster)).Set(number(ok))
	}
}

// Condition sets or clears something that needs the operator, e.g. subject
// "cluster/prod", condition "RBACStale".
func (m *Metrics) Condition(subject, condition string, holds bool) {
	if m != nil {
		m.condition.WithLabelValues(subject, condition).Set(number(holds))
	}
}

// Token counts a check of a bearer token. Kind is control or further, result
// hit, ok or refused.
func (m *Metrics) Token(kind, result string) {
	if m != nil {
		m.tokens.WithLabelValues(kind, result).Inc()
	}
}

// KeyFetch counts a fetch of an issuer's keys; err nil means they are in use.
func (m *Metrics) KeyFetch(issuer wire.Issuer, at time.Time, err error) {
	if m == nil {
		return
	}
	m.keyFetches.WithLabelValues(string(issuer), result(err)).Inc()
	if err == nil {
		m.keyAge.WithLabelValues(string(issuer)).Set(float64(at.Unix()))
	}
}

// AuditLost counts an audit record that could not be written.
func (m *Metrics) AuditLost() {
	if m != nil {
		m.auditLost.Inc()
	}
}

// Reload counts a reload of, for example, "objects", "certificate" or
// "issuers".
func (m *Metrics) Reload(source string, err error) {
	if m != nil {
		m.reloads.WithLabelValues(source, result(err)).Inc()
	}
}

// Epoch sets the epoch of the state in use.
func (m *Metrics) Epoch(e wire.Epoch) {
	if m != nil {
		m.stateEpoch.WithLabelValues("generation").Set(float64(e.Generation))
		m.stateEpoch.WithLabelValues("sequence").Set(float64(e.Sequence))
	}
}

// Login counts one step of a login: check, enroll, session, renew. Reason is
// empty when it went well.
func (m *Metrics) Login(step string, reason wire.Reason) {
	if m == nil {
		return
	}
	if reason == "" {
		reason = "ok"
	}
	m.logins.WithLabelValues(step, string(reason)).Inc()
}

// Issued counts a credential: certificate, renewal, token.
func (m *Metrics) Issued(kind string) {
	if m != nil {
		m.issued.WithLabelValues(kind).Inc()
	}
}

// Handshake counts a TLS handshake that failed. Cause is one of a few words of
// the caller's, never the error's text.
func (m *Metrics) Handshake(regime, cause string) {
	if m != nil {
		m.handshakes.WithLabelValues(regime, cause).Inc()
	}
}

func number(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}
