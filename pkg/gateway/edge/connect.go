package edge

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/wire"
)

// connect is one CONNECT. Only the request line's target counts, which in
// HTTP/2 is :authority; a Host field beside it has no effect (V083).
func (t *tunnel) connect(w http.ResponseWriter, r *http.Request) {
	defer t.recoverPanic()
	to, refusal := t.edge.names.parseTarget(r.Host)
	if refusal == nil {
		refusal = t.edge.connectForm(r)
	}
	if refusal != nil {
		t.refuse(w, to, refusal)
		return
	}
	count := t.edge.tunnels
	if to.control {
		count = t.edge.controls
	}
	leave, ok := count.Enter(t.current().Key)
	if !ok {
		t.refuse(w, to, wire.Refuse(wire.ReasonLimit, "close some of them", "this device has as many tunnels open as are allowed"))
		return
	}
	defer leave()
	t.open(w, r, to)
}

// connectForm refuses what no CONNECT may have (RFC 9110, 9.3.6): a length or
// coding of a body that there is not (V081).
func (e *Edge) connectForm(r *http.Request) *wire.Refusal {
	switch {
	case e.draining.Load():
		return wire.Refuse(wire.ReasonShuttingDown, "try again", "the gateway is shutting down")
	case len(r.Header["Content-Length"]) > 0 || len(r.Header["Transfer-Encoding"]) > 0 || len(r.TransferEncoding) > 0 || r.ContentLength > 0:
		return wire.Refuse(wire.ReasonMalformed, "", "a CONNECT has no body")
	}
	return nil
}

// open registers the stream, asks whether it may be, and hands it over.
func (t *tunnel) open(w http.ResponseWriter, r *http.Request, to target) {
	e, id := t.edge, t.current()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()

	facts := e.o.Facts(id)
	facts.Cluster = to.cluster
	var mute atomic.Bool
	if !to.control {
		// The kube part cuts by itself and tells the person why. So it gets a
		// moment for that, in which nothing goes its way any more; then the stream
		// ends, whatever the kube part knows.
		over := func() {
			mute.Store(true)
			time.AfterFunc(cutGrace, cancel)
		}
		release := e.o.Registry.Register(facts, func(*wire.Refusal) { over() })
		defer release()
		stop := context.AfterFunc(t.streams, over)
		defer stop()
	}
	backend, refusal := t.admit(to)
	if refusal == nil {
		refusal = e.o.Registry.Check(facts)
	}
	if refusal != nil {
		t.refuse(w, to, refusal)
		return
	}
	stream, err := h2conn.Accept(w, r)
	if err != nil {
		return // the client has gone
	}
	abort := context.AfterFunc(ctx, stream.Abort)
	defer abort()
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer stream.Close()
		defer t.recoverPanic()
		backend.ServeStream(ctx, mutable{stream, &mute}, Notes{Client: t.client, Regime: RegimeTunnel, Session: id.Session, Device: id.Device})
	}()
	stream.Run()
	cancel()
	<-served
}

// mutable is a stream whose client can be made to say nothing more, while it can
// still be told something.
type mutable struct {
	*h2conn.ServerStream
	mute *atomic.Bool
}

// Read implements net.Conn.
func (m mutable) Read(b []byte) (int, error) {
	for {
		n, err := m.ServerStream.Read(b)
		if !m.mute.Load() {
			return n, err
		}
		if err != nil {
			return 0, err
		}
	}
}

// admit finds the backend of a target. What does not exist and what must not be
// seen take the same way to the same answer (V121).
func (t *tunnel) admit(to target) (Backend, *wire.Refusal) {
	e, id := t.edge, t.current()
	if refusal := t.gone(); refusal != nil {
		return nil, refusal
	}
	if e.o.Now().After(id.NotAfter) {
		return nil, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "the trust certificate of this connection has expired")
	}
	if to.control {
		return e.o.Control, nil
	}
	backend := e.o.Cluster(to.cluster)
	if e.o.Admit != nil {
		if refusal := e.o.Admit(id, to.cluster); refusal != nil {
			return nil, refusal
		}
	}
	if backend == nil {
		return nil, UnknownCluster()
	}
	return backend, nil
}

// refuse answers a CONNECT with a status, the refusal in a header, and a line
// in the audit log.
func (t *tunnel) refuse(w http.ResponseWriter, to target, refusal *wire.Refusal) {
	h2conn.Refuse(w, t.decide(to.cluster, refusal))
}

func (t *tunnel) refusePlain(w http.ResponseWriter, refusal *wire.Refusal) {
	WriteRefusal(w, t.decide("", refusal))
}

// decide records a refusal and gives it an id, on a copy: refusals may be shared.
func (t *tunnel) decide(cluster wire.ClusterName, refusal *wire.Refusal) *wire.Refusal {
	decided := *refusal
	decided.Decision = audit.NewDecision()
	t.edge.o.Metrics.Refused("edge", decided.Reason)
	t.edge.record(t.note(audit.Record{
		ID: decided.Decision, Decision: audit.Refused, Reason: decided.Reason, Message: decided.Message,
		Cluster: cluster, Code: decided.Status(),
	}))
	return &decided
}

// recoverPanic ends one stream and not the process.
func (t *tunnel) recoverPanic() {
	if p := recover(); p != nil {
		t.edge.o.Metrics.Panic("edge")
		t.edge.log.Error("panic on a stream", "panic", p)
	}
}
