package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/bind"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/gateway/stream"
	"github.com/kube-zt/zt/pkg/wire"
)

// exchange is one request on its way through the chain. One goroutine works on
// it; only cut may be called from others.
type exchange struct {
	kube *Kube
	link *link
	w    *answer
	r    *http.Request
	// ctx is the request's own, ended by a cut with the refusal as its cause.
	ctx    context.Context
	cancel context.CancelCauseFunc

	id    wire.DecisionID
	began time.Time

	// What the steps find out, in their order.
	snapshot *store.Snapshot // one version for all that is decided
	upgrade  *stream.Upgrade
	slot     limit.Slot
	who      *authn.Identity
	claimed  *authn.Identity // a token's person who is not the stream's
	facts    revoke.Facts
	release  func()
	leave    func() // gives back the place of a body that was read here
	roles    []wire.Role
	taken    []wire.Role // roles that were revoked: Denies go on holding for them
	info     *apirequest.RequestInfo
	long     bool
	asked    policy.Input
	decision policy.Decision

	failure error // of the leg upstream, for the record
	splice  stream.Result
}

// chain is the whole way of a request. Each step may end it with a refusal; what
// a step relies on, an earlier one has established. Audit is wrapped around it
// (see serve) and is also a step in it, because what can change something is
// written down before it happens.
func (x *exchange) chain() *wire.Refusal {
	for _, step := range [...]func(*exchange) *wire.Refusal{
		(*exchange).accept,      // this cluster's name in TLS and in Host, a form that can be judged
		(*exchange).limit,       // a slot in the name of the stream's person or source
		(*exchange).authn,       // whose token is it
		(*exchange).bind,        // is it this stream's
		(*exchange).register,    // from here on a revocation reaches the request
		(*exchange).revoke,      // and what was revoked before is refused here
		(*exchange).requestinfo, // what is asked for, in Kubernetes' own terms
		(*exchange).policy,      // may these roles on this device do that
		(*exchange).intent,      // write it down, or it does not happen
		(*exchange).impersonate, // in whose name it goes out
		(*exchange).stream,      // and there it goes
	} {
		if refusal := step(x); refusal != nil {
			return refusal
		}
	}
	return nil
}

// serve is the handler of all requests: the chain, and around it what must
// happen however the chain ends.
func (k *Kube) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{kube: k, w: &answer{ResponseWriter: w}, r: r, id: audit.NewDecision(), began: k.o.Now(), release: func() {}, leave: func() {}}
	x.link, _ = r.Context().Value(linkKey{}).(*link)
	x.ctx, x.cancel = context.WithCancelCause(r.Context())
	defer x.finish()
	if x.link == nil {
		x.refuse(wire.Refuse(wire.ReasonInternal, "", "the connection is unknown"))
		return
	}
	if refusal := x.chain(); refusal != nil {
		x.refuse(refusal)
	}
}

// finish runs when the handler returns or panics. A panic ends this request and
// nothing else.
func (x *exchange) finish() {
	broken := recover()
	x.release()
	x.leave()
	x.slot.Release()
	// A cut that came when everything had been said is none.
	cut := x.splice.Cut
	if broken != nil && !errors.As(context.Cause(x.ctx), &cut) {
		cut = nil
	}
	x.cancel(context.Canceled)
	abort := false
	switch {
	case broken == nil:
	case broken == http.ErrAbortHandler:
		// The answer broke off: because of a cut, or because one side went away.
		abort = cut == nil || !x.w.farewell(x.numbered(cut))
		if cause := context.Cause(x.ctx); errors.Is(cause, stream.ErrTimeout) {
			x.failure = cause
		}
	default:
		x.kube.o.Metrics.Panic("kube")
		x.kube.log.Error("a handler panicked", "decision", x.id, "panic", broken, "stack", string(debug.Stack()))
		x.failure = errors.New("panic")
		abort = x.w.code != 0
		if !abort {
			x.refuse(wire.Refuse(wire.ReasonInternal, "try again", "the gateway failed at this request"))
		}
	}
	x.outcome(cut)
	if x.r.ProtoMajor == 2 {
		// net/http keeps the request until the client has taken all of the answer.
		clear(x.r.Header)
	}
	if abort {
		panic(http.ErrAbortHandler)
	}
}

// refuse answers and remembers why for the record.
func (x *exchange) refuse(refusal *wire.Refusal) {
	refusal = x.numbered(refusal)
	x.kube.o.Metrics.Refused("kube", refusal.Reason)
	if x.w.code == 0 {
		x.w.refusal = refusal
		x.w.refuse(refusal, x.r)
	}
}

// numbered is the refusal with this decision's id. The original may be shared.
func (x *exchange) numbered(refusal *wire.Refusal) *wire.Refusal {
	copied := *refusal
	copied.Decision = x.id
	return &copied
}

// accept looks at what a request must be before anything else about it counts.
func (x *exchange) accept() *wire.Refusal {
	if _, refusal := x.link.peer(); refusal != nil {
		return refusal
	}
	// An absolute form or "*" would name a host or a target that nobody checked.
	if !strings.HasPrefix(x.r.RequestURI, "/") {
		return wire.Refuse(wire.ReasonMalformed, "", "the request target is not a path")
	}
	if x.link.shut() {
		return wire.Refuse(wire.ReasonClusterDisabled, "", "this cluster's direct name was switched off")
	}
	if !sameHost(x.r.Host, x.link.host) {
		return wire.Refuse(wire.ReasonWrongHost, "", "this connection is for another host name")
	}
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return wire.Refuse(wire.ReasonMethod, "", "method %s is not accepted", audit.Clip(x.r.Method, 16))
	}
	if !sized(x.r) {
		return wire.Refuse(wire.ReasonMalformed, "", "the request does not say its length as one number")
	}
	var refusal *wire.Refusal
	x.upgrade, refusal = stream.ParseUpgrade(x.r)
	return refusal
}

// sameHost compares a Host header with the name that TLS was for. The port is
// the listener's business.
func sameHost(host, want string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.EqualFold(host, want)
}

func (x *exchange) limit() *wire.Refusal {
	class := limit.Write
	if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
		class = limit.Read
	}
	var refusal *wire.Refusal
	x.slot, refusal = x.kube.limiter.Acquire(class, x.link.holder)
	return refusal
}

func (x *exchange) authn() *wire.Refusal {
	webSocket := x.upgrade != nil && x.upgrade.Protocol == stream.WebSocket
	credential, refusal := authn.FromRequest(x.r.Header, webSocket)
	if refusal != nil {
		return refusal
	}
	for _, token := range [...]string{credential.Header, credential.Protocol} {
		if token == "" {
			continue
		}
		who, refusal := x.kube.authn.Authenticate(x.ctx, token)
		if refusal != nil {
			return refusal
		}
		if x.who != nil && !authn.Same(x.who, who) {
			return wire.Refuse(wire.ReasonTokenInvalid, "", "the request carries the tokens of two identities")
		}
		x.who = who
	}
	return nil
}

func (x *exchange) bind() *wire.Refusal {
	peer, _ := x.link.peer()
	refusal := bind.Check(peer, x.who)
	if refusal != nil && peer != nil {
		// The record names both: whose stream it is and whose token it was.
		x.claimed, x.who = x.who, nil
	}
	return refusal
}

func (x *exchange) register() *wire.Refusal {
	x.snapshot = x.kube.o.Snapshot()
	if x.snapshot == nil || x.snapshot.Policy == nil {
		return wire.Refuse(wire.ReasonStoreFailed, "try again", "the gateway has no state to decide on")
	}
	if peer, _ := x.link.peer(); peer != nil {
		x.facts = x.kube.o.Facts(*peer)
	}
	f := &x.facts
	f.Cluster, f.User = x.kube.name, x.who.User
	if x.who.Kind == authn.Control {
		f.Roles, f.Epoch = x.who.Roles, x.who.Epoch
	} else {
		f.Groups = slices.Concat(f.Groups, x.who.Groups)
		f.Roles = x.who.RolesBy(x.snapshot.Policy, func() []wire.Role {
			return x.snapshot.Policy.Roles(policy.Subject{User: x.who.User, Groups: x.who.Groups, Device: x.who.Device})
		})
		f.Epoch = x.snapshot.Epoch
	}
	x.release = x.kube.o.Registry.Register(x.facts, x.cut)
	return nil
}

// cut ends the request from outside. It does not block.
func (x *exchange) cut(refusal *wire.Refusal) { x.cancel(refusal) }

func (x *exchange) revoke() *wire.Refusal {
	if refusal := x.kube.o.Registry.Check(x.facts); refusal != nil {
		return refusal
	}
	x.link.proven()
	x.roles, x.taken = x.kube.left(x.facts, x.who)
	return nil
}

// left parts the roles of facts into those that still give something and those
// that were taken, those included that control took before it made the token.
func (k *Kube) left(facts revoke.Facts, who *authn.Identity) (roles, taken []wire.Role) {
	roles, taken = k.o.Registry.Part(facts)
	return roles, slices.Concat(taken, who.Revoked)
}

// lasting is left for roles that are found while the request lives.
func (x *exchange) lasting() func([]wire.Role) (roles, taken []wire.Role) {
	k, facts, who := x.kube, x.facts, x.who
	return func(held []wire.Role) (roles, taken []wire.Role) {
		now := facts
		now.Roles = held
		return k.left(now, who)
	}
}

func (x *exchange) requestinfo() *wire.Refusal {
	if refusal := impersonate.CheckInbound(x.r.Header); refusal != nil {
		return refusal
	}
	info, refusal := asked(x.kube.infos, x.r)
	if refusal != nil {
		return refusal
	}
	x.info, x.long = info, longRunning(info)
	if x.upgrade != nil && !(info.IsResourceRequest && streams(info.Subresource)) {
		return wire.Refuse(wire.ReasonUpgrade, "", "this path is no stream, so the connection cannot be upgraded")
	}
	if x.long {
		return x.slot.Move(limit.Long)
	}
	if x.r.ContentLength > maxRequestBody {
		return stream.TooLarge(maxRequestBody)
	}
	if x.r.ContentLength != 0 { // which sized has held to be true
		x.r.Body = http.MaxBytesReader(x.w, x.r.Body, maxRequestBody)
	}
	return nil
}

// proxied reports whether an application answers and not the API server.
func (x *exchange) proxied() bool { return x.info.IsResourceRequest && x.info.Subresource == "proxy" }

func (x *exchange) policy() *wire.Refusal {
	in := policy.Input{
		Now:             x.began,
		User:            x.who.User,
		Roles:           x.roles,
		DenyRoles:       x.taken,
		Device:          x.who.Device,
		Cluster:         x.kube.name,
		Verb:            x.info.Verb,
		APIGroup:        x.info.APIGroup,
		Resource:        x.info.Resource,
		Subresource:     x.info.Subresource,
		Namespace:       x.info.Namespace,
		Name:            x.info.Name,
		Path:            x.info.Path,
		ResourceRequest: x.info.IsResourceRequest,
	}
	if x.proxied() {
		// What stands behind it is an application's, which may be asked for a file by
		// its query as well.
		if query, err := url.QueryUnescape(x.r.URL.RawQuery); err == nil && query != "" {
			in.Path += "?" + query
		}
	}
	x.decision = x.snapshot.Policy.Decide(in)
	if x.decision.Allowed && x.snapshot.Policy.WantsObject(&in) {
		var refusal *wire.Refusal
		if in.Object, refusal = x.object(); refusal != nil {
			return refusal
		}
		x.decision = x.snapshot.Policy.Decide(in)
	}
	x.asked = in
	if x.decision.WouldDeny {
		x.kube.o.Metrics.WouldDeny(x.kube.name)
	}
	if refusal := x.decision.Refusal(); refusal != nil {
		if x.who.GroupsElsewhere {
			refusal.Hint = "your token only names a place to ask for your groups, so roles by group are not held; " + refusal.Hint
		}
		return refusal
	}
	if refusal := x.kube.outdated(x.snapshot); refusal != nil {
		return refusal
	}
	return x.kube.unusable()
}

func (x *exchange) intent() *wire.Refusal {
	if x.upgrade == nil && reads(x.info, x.r.Method) {
		return nil
	}
	record := x.record()
	record.Decision = audit.Allowed
	if x.kube.o.Audit.Intent(record) != nil {
		return wire.Refuse(wire.ReasonAuditFailed, "tell your administrator", "the audit log cannot be written, so nothing is changed")
	}
	return nil
}

func (x *exchange) impersonate() *wire.Refusal {
	identity := &impersonate.Identity{
		User:     x.who.Name,
		UID:      x.who.UID,
		Roles:    x.roles,
		Extra:    x.who.Extra,
		ClientIP: x.link.source,
		Proxied:  x.proxied(),
		AuditID:  x.id,
	}
	if peer, _ := x.link.peer(); peer != nil {
		identity.Device, identity.Session = peer.Device, peer.Session
	}
	x.ctx = impersonate.WithIdentity(x.ctx, identity)
	return nil
}

func (x *exchange) stream() *wire.Refusal {
	if x.long {
		defer x.kube.judgements.add(&judged{who: x.who, in: x.asked, left: x.lasting(), cut: x.cut, by: x.snapshot.Policy, at: x.began})()
	}
	if x.upgrade != nil {
		return x.streamUpgrade()
	}
	var failed *stream.Failure
	request := &stream.Request{Long: x.long, Proxied: x.proxied(), Failed: func(f *stream.Failure) { failed = f }}
	x.w.watch = x.long && x.info.Verb == "watch"
	// A client that does not read must not hold up the end of a request that was cut
	// or has had its time.
	control := http.NewResponseController(x.w.ResponseWriter)
	if x.long {
		_ = control.SetWriteDeadline(time.Time{}) // instead of the server's, which is for all others
	}
	ended := make(chan struct{})
	var hard *time.Timer
	stop := context.AfterFunc(x.ctx, func() {
		defer close(ended)
		_ = control.SetWriteDeadline(time.Now().Add(cutGrace))
		if x.r.ProtoMajor == 1 {
			// There net/http closes the connection under the handler's hands, and TLS
			// says goodbye first, to which somebody who does not read listens for 5 s.
			hard = time.AfterFunc(cutGrace+hardAfter, func() { x.link.conn.NetConn().Close() })
		}
	})
	defer func() {
		if !stop() {
			<-ended // the controller is not to be used once the handler returned
			if hard != nil {
				hard.Stop()
			}
		}
	}()
	if !x.long {
		timer := time.AfterFunc(x.kube.requestTime, func() { x.cancel(stream.ErrTimeout) })
		defer timer.Stop()
	}
	x.kube.proxy.Serve(x.ctx, x.w, x.r, request)
	if x.long && x.ctx.Err() == nil {
		_ = control.SetWriteDeadline(time.Now().Add(x.kube.requestTime)) // for the rest, which goes out when the handler has returned
	}
	if failed != nil {
		return x.failed(failed)
	}
	return nil
}

func (x *exchange) streamUpgrade() *wire.Refusal {
	timer := time.AfterFunc(x.kube.requestTime, func() { x.cancel(stream.ErrTimeout) })
	session, failed := x.kube.proxy.Dial(x.ctx, x.w, x.r, x.upgrade, x.proxied())
	if !timer.Stop() && session != nil {
		session.Close()
		return wire.Refuse(wire.ReasonUpstreamTimeout, "try again", "the cluster's API server did not answer in time")
	}
	if failed != nil {
		return x.failed(failed)
	}
	if session == nil {
		return nil // upstream's own answer was relayed
	}
	x.w.code = http.StatusSwitchingProtocols
	x.kube.o.Metrics.Stream(x.kube.name, 1)
	defer x.kube.o.Metrics.Stream(x.kube.name, -1)
	// A connection that was taken over is no longer the server's to report.
	defer x.link.close()
	x.splice, x.failure = session.Run(x.ctx, x.w.ResponseWriter, x.id)
	x.kube.o.Metrics.StreamBytes(x.kube.name, x.splice.In, x.splice.Out)
	return nil
}

// failed turns what became of the leg upstream into the client's answer.
func (x *exchange) failed(f *stream.Failure) *wire.Refusal {
	x.failure = f.Err
	if f.Kind != "" {
		x.kube.o.Metrics.Upstream(x.kube.name, f.Kind)
	}
	if f.Kind == stream.KindRBAC {
		x.kube.stale(audit.Clip(f.Err.Error(), 500))
	}
	return f.Refusal
}

// outcome writes how it ended. It is the one record of a request that changes
// nothing, and the second one of all others.
func (x *exchange) outcome(cut *wire.Refusal) {
	record := x.record()
	record.Decision, record.Code = audit.Allowed, x.w.code
	record.Duration = x.kube.o.Now().Sub(x.began)
	record.BytesOut = x.w.bytes
	if x.upgrade != nil {
		record.BytesIn, record.BytesOut = x.splice.In, x.splice.Out
	} else if x.r.ContentLength > 0 {
		record.BytesIn = x.r.ContentLength
	}
	refusal := x.w.refusal
	if refusal == nil {
		refusal = cut
	}
	if refusal != nil {
		record.Decision, record.Reason, record.Message, record.Policy = audit.Refused, refusal.Reason, audit.Clip(refusal.Message, recordedMessage), refusal.Policy
		record.Error = audit.Clip(refusal.Cause, 500)
		if refusal == cut {
			x.kube.o.Metrics.Cut("kube", cut.Reason)
		}
	}
	if x.failure != nil {
		record.Error = audit.Clip(x.failure.Error(), 500)
	}
	if !x.stranger() || x.kube.strangers.AllowN(x.kube.o.Now(), 1) {
		x.kube.o.Audit.Outcome(record)
	}

	verb := "other"
	if x.info != nil {
		verb = x.info.Verb
	}
	x.kube.o.Metrics.Request(x.kube.name, verb, record.Code, record.Duration, x.long)
}

// stranger reports whether nobody is known on either side of the request: then it
// is counted, but not more than a few a second are recorded.
func (x *exchange) stranger() bool {
	if x.who != nil || x.claimed != nil || x.link == nil {
		return false
	}
	peer, _ := x.link.peer()
	return peer == nil
}

// How many bytes of a name, and of a text with names in it, are recorded: a record
// that became too long would not be written at all (package audit).
const (
	recordedName    = 512
	recordedMessage = 2 << 10
)

// record is what is known so far.
func (x *exchange) record() audit.Record {
	record := audit.Record{
		ID:      x.id,
		Cluster: x.kube.name,
		Method:  audit.Clip(x.r.Method, 16),
		Path:    audit.Clip(x.r.URL.Path, 2<<10),
	}
	if agent := x.r.Header["User-Agent"]; len(agent) > 0 {
		record.UserAgent = audit.Clip(agent[0], 256)
	}
	if l := x.link; l != nil {
		record.Source, record.Regime = l.source, l.regime
		if peer, _ := l.peer(); peer != nil {
			record.User, record.Device, record.Session = &peer.User, peer.Device, peer.Session
		}
	}
	if x.who != nil {
		record.User, record.Tier, record.Roles = &x.who.User, x.who.Device.Tier, x.roles
	}
	if x.claimed != nil {
		record.Claimed = &x.claimed.User
		if x.link.regime == edge.RegimeDirect {
			record.User, record.Claimed = record.Claimed, nil
		}
	}
	if x.info != nil {
		// A name may come out of a field selector and is as long as its sender likes.
		for _, f := range [...]struct {
			to *string
			of string
		}{
			{&record.Verb, x.info.Verb},
			{&record.APIGroup, x.info.APIGroup},
			{&record.Resource, x.info.Resource},
			{&record.Subresource, x.info.Subresource},
			{&record.Namespace, x.info.Namespace},
			{&record.Name, x.info.Name},
		} {
			*f.to = audit.Clip(f.of, recordedName)
		}
		if x.info.Subresource == "exec" {
			record.Command, record.CommandHash = command(x.r)
		}
	}
	if x.upgrade != nil {
		record.Upgrade = x.upgrade.Protocol
	}
	if d := x.decision; d.Version != "" {
		record.Policy, record.Rule, record.Version, record.WouldDeny = d.Policy, d.Rule+1, d.Version, d.WouldDeny
		if d.WouldDeny {
			record.Reason, record.Message = d.Reason, audit.Clip(d.Message, recordedMessage)
		}
	}
	return record
}

// command is the head of what is executed, and the hash of all of it where the
// head is not the whole.
func command(r *http.Request) (head, hash string) {
	const room = 256
	whole := strings.Join(r.URL.Query()["command"], " ")
	if len(whole) <= room {
		return whole, ""
	}
	sum := sha256.Sum256([]byte(whole))
	return audit.Clip(whole, room), hex.EncodeToString(sum[:])
}
