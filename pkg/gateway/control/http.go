package control

import (
	"encoding/json"
	"net/http"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/wire"
)

// routes answers exact paths and methods; all else is refused in JSON.
type routes map[string]map[string]http.HandlerFunc // path, method

func (rs routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	methods, ok := rs[r.URL.Path]
	if !ok {
		edge.WriteRefusal(w, &wire.Refusal{Reason: wire.ReasonMalformed, Code: http.StatusNotFound, Message: "there is nothing here"})
		return
	}
	handler, ok := methods[r.Method]
	if !ok {
		for method := range methods {
			w.Header().Add("Allow", method)
		}
		edge.WriteRefusal(w, wire.Refuse(wire.ReasonMethod, "", "%s is not for this path", audit.Clip(r.Method, 16)))
		return
	}
	handler(w, r)
}

// guard keeps a panic to the request that it happened in.
func (c *Control) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			c.o.Metrics.Panic("control")
			c.log.Error("panic in a request", "path", r.URL.Path, "panic", p)
			edge.WriteRefusal(w, wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request"))
		}()
		next.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"reason":"internal","message":"the gateway failed at this request"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write(body)
}

// refused gives a refusal its id, counts it under step, and records it: one of a
// person always, those of nobody at a bounded rate. cause is for the audit log
// alone.
func (c *Control) refused(step string, r audit.Record, refusal *wire.Refusal, cause error) *wire.Refusal {
	decided := *refusal
	decided.Decision = audit.NewDecision()
	r.ID, r.Decision, r.Reason, r.Message, r.Code = decided.Decision, audit.Refused, decided.Reason, decided.Message, decided.Status()
	if cause != nil {
		r.Error = audit.Clip(cause.Error(), 512)
	}
	c.o.Metrics.Login(step, decided.Reason)
	if r.User != nil && decided.Reason != wire.ReasonLimit || c.floods.AllowN(c.now(), 1) {
		_ = c.o.Audit.Event(r) // a refusal never depends on a log write
	}
	return &decided
}

// allowed records that something is about to be given. Without the record it
// must not be.
func (c *Control) allowed(step string, r audit.Record) *wire.Refusal {
	r.Decision = audit.Allowed
	if r.ID == "" {
		r.ID = audit.NewDecision()
	}
	if err := c.o.Audit.Event(r); err != nil {
		c.o.Metrics.Login(step, wire.ReasonAuditFailed)
		return wire.Refuse(wire.ReasonAuditFailed, "try again", "the gateway cannot write its audit log")
	}
	return nil
}
