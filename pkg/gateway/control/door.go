package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/wire"
)

// Sizes of bodies, in bytes: what a laptop sends, with room.
const (
	maxStatement = 8 << 10
	// maxLogin is an ID token, a transaction, a certificate request and a chain.
	maxLogin   = authn.LoginLimit + 32<<10
	maxCluster = 4 << 10
)

const (
	// bodyTime is for a whole body: maxLogin at 30 KB/s.
	bodyTime = 10 * time.Second
	// unreadTime is how long a body that is not wanted may take to arrive before
	// its connection goes. Without any the client could not read the refusal.
	unreadTime = time.Second
	// Bodies that are read at once: of strangers in all, per source and per site,
	// and per stream of a peer who has proved himself. What is refused here, others
	// hold for bodyTime at most.
	bodiesTotal     = 64
	bodiesPerSource = 8
	bodiesPerSite   = 16
)

func newBodies() *limit.Slots[netip.Prefix] {
	return limit.NewSlots(func() int { return bodiesTotal }, func(p netip.Prefix) int {
		if limit.IsSite(p) {
			return bodiesPerSite
		}
		return bodiesPerSource
	})
}

// door is what a stranger must pass before anything of his body is looked at.
type door struct {
	step   string // as the metrics call it
	event  audit.Event
	budget *budget
	most   int64 // bytes
}

// answer runs one step of gw.DOMAIN and writes what came of it. The budget of
// the source is spent before the body is read. Every refusal gets an id.
func answer[Request, Response any](c *Control, d door, step func(context.Context, source, *Request) (*Response, *wire.Refusal)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from, in := sourceOf(r), new(Request)
		refusal := c.pass(w, r, d, from, in)
		if refusal != nil {
			record := audit.Record{Event: d.event, Source: from.String(), UserAgent: from.userAgent}
			edge.WriteRefusal(w, c.refused(d.step, record, refusal, nil))
			return
		}
		out, refusal := step(r.Context(), from, in)
		if refusal != nil {
			edge.WriteRefusal(w, refusal)
			return
		}
		writeJSON(w, http.StatusOK, out)
	}
}

// pass spends a stranger's budget, then one of the places for bodies, then reads.
func (c *Control) pass(w http.ResponseWriter, r *http.Request, d door, from source, into any) *wire.Refusal {
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadTime)); err != nil {
		return wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request")
	}
	if refusal := d.budget.take(from.addr); refusal != nil {
		return refusal
	}
	leave, ok := c.bodies.Enter(limit.Sources(from.addr)...)
	if !ok {
		return wire.Refuse(wire.ReasonLimit, "try again", "too many logins are being read at once")
	}
	defer leave()
	return readJSON(w, r, d.most, into)
}

// readJSON reads a body of the one content type, of at most so many bytes, whole,
// and nothing after it.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, into any) *wire.Refusal {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &wire.Refusal{Reason: wire.ReasonMalformed, Code: http.StatusUnsupportedMediaType, Message: "the body must be application/json"}
	}
	if r.ContentLength > most {
		return refuseSize(most)
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return wire.Refuse(wire.ReasonInternal, "", "the gateway failed at this request")
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	err := decoder.Decode(into)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			// What is read from now on only tells that the client went away.
			_ = control.SetReadDeadline(time.Time{})
			return nil
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refuseSize(most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &wire.Refusal{Reason: wire.ReasonMalformed, Code: http.StatusRequestTimeout, Message: "the body took too long to arrive", Hint: "try again"}
	}
	// The decoder's text may quote the body, in which there are secrets.
	return wire.Refuse(wire.ReasonMalformed, "", "the body is not the JSON that is wanted here")
}

// refuseSize knows that only an ID token makes a login large.
func refuseSize(most int64) *wire.Refusal {
	refusal := wire.Refuse(wire.ReasonTooLarge, "", "the body is larger than %d bytes", most)
	if most == maxLogin {
		refusal.Hint = hintGroups
	}
	return refusal
}

// hintGroups is for a token that is too large.
const hintGroups = "ask your administrator to let the identity provider put only the groups that zt's roles name into the token"
