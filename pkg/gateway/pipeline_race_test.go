package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/edge"
	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// deadlined is a recorder that takes deadlines.
type deadlined struct{ *httptest.ResponseRecorder }

func (deadlined) SetWriteDeadline(time.Time) error { return nil }

// race is a kube part in which the test is told when a request is about to be
// registered.
type race struct {
	*rig
	kube        *Kube
	registering atomic.Pointer[func()]
	epoch       uint64
}

func newRace(t *testing.T) *race {
	r := &race{rig: newRig(t, rigOptions{})}
	r.upstream.handle(watchUpstream(oneEvent))
	o := r.rig.kube.o
	o.Facts = func(id trust.Identity) revoke.Facts {
		if hook := r.registering.Load(); hook != nil {
			(*hook)()
		}
		return edge.CertificateFacts(id)
	}
	var err error
	r.kube, err = NewKube(o)
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = r.kube.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	r.eventually("the kube part is ready", r.kube.Reachable)
	return r
}

// revoke ends p's session and nothing else.
func (r *race) revoke(p *person) {
	r.epoch++
	revocation := &v1alpha1.Revocation{Spec: v1alpha1.RevocationSpec{Session: string(p.session)}}
	r.registry.Apply([]*v1alpha1.Revocation{revocation}, wire.Epoch{Generation: 2, Sequence: r.epoch})
}

// watch is a request of p's that would go on for ever.
func (r *race) watch(p *person) (*http.Request, *link) {
	id := p.identity()
	l := &link{
		kube: r.kube, identity: &id, host: r.kube.host, regime: edge.RegimeTunnel, holder: limit.Holder{Name: string(p.user.Subject)},
		source: netip.MustParseAddr("203.0.113.7").String(), done: make(chan struct{}), release: func() {},
	}
	const path = "/api/v1/pods?watch=1"
	request := httptest.NewRequest(http.MethodGet, "https://"+r.kube.host+path, nil)
	request.RequestURI = path
	request.Header.Set("Authorization", "Bearer "+p.token())
	// ReverseProxy breaks an answer off only where a server is there to notice.
	ctx := context.WithValue(r.t.Context(), http.ServerContextKey, r.kube.server)
	return request.WithContext(context.WithValue(ctx, linkKey{}, l)), l
}

// alive are the requests of p's that are registered.
func (r *race) alive(p *person) (n int) {
	for _, facts := range r.registry.Live() {
		if facts.Session == p.session {
			n++
		}
	}
	return n
}

// TestV208RevokeRacesWithTheChain: a request that is on its way through the chain
// when its session is revoked is dead two seconds later, wherever it was.
func TestV208RevokeRacesWithTheChain(t *testing.T) {
	t.Parallel()
	r := newRace(t)
	refused, cut := 0, 0
	for round := range 1000 {
		p := r.person(fmt.Sprintf("p%d@example.com", round))
		request, _ := r.watch(p)
		revoked := make(chan time.Time, 1)
		var now atomic.Bool
		hook := func() { now.Store(true) }
		r.registering.Store(&hook)
		go func() {
			for !now.Load() {
				runtime.Gosched()
			}
			// The check follows on the registration within microseconds, and then comes
			// a long way upstream: most rounds are for the former, the last for the latter.
			delay := time.Duration(round%50) * 200 * time.Nanosecond
			if round%10 == 9 {
				delay = time.Duration(round%50) * 20 * time.Microsecond
			}
			for begin := time.Now(); time.Since(begin) < delay; { //nolint:revive // a sleep is not as exact
			}
			revoked <- time.Now()
			r.revoke(p)
		}()
		w := deadlined{httptest.NewRecorder()}
		ended := make(chan time.Time, 1)
		go func() {
			defer func() {
				if broken := recover(); broken != nil && broken != http.ErrAbortHandler {
					t.Errorf("round %d: %v", round, broken)
				}
				ended <- time.Now()
			}()
			r.kube.serve(w, request)
		}()
		select {
		case at := <-ended:
			if took := at.Sub(<-revoked); took > 2*time.Second {
				t.Fatalf("round %d: dead after %s", round, took)
			}
		case <-time.After(4 * time.Second):
			t.Fatalf("round %d: it lives on", round)
		}
		if n := r.alive(p); n != 0 {
			t.Fatalf("round %d: %d are registered", round, n)
		}
		switch body := w.Body.String(); {
		case w.Code == http.StatusForbidden:
			refused++
		case strings.Contains(body, `"type":"ERROR"`) || body == "":
			cut++
		default:
			t.Fatalf("round %d: %d %q", round, w.Code, body)
		}
	}
	if refused == 0 || cut == 0 {
		t.Errorf("%d were refused, %d were cut: they did not race", refused, cut)
	}
}

// TestV208BetweenTheSteps is the same without chance: the revocation comes before
// the registration, between it and the check, and after the check.
func TestV208BetweenTheSteps(t *testing.T) {
	t.Parallel()
	r := newRace(t)
	for at, name := range []string{"before the registration", "between registration and check", "after the check"} {
		p := r.person(strings.ReplaceAll(name, " ", "-") + "@example.com")
		request, l := r.watch(p)
		x := &exchange{kube: r.kube, link: l, w: &answer{ResponseWriter: httptest.NewRecorder()}, r: request, began: time.Now(), release: func() {}}
		x.ctx, x.cancel = context.WithCancelCause(request.Context())
		steps := []func(*exchange) *wire.Refusal{(*exchange).register, (*exchange).revoke}
		for _, step := range []func(*exchange) *wire.Refusal{(*exchange).accept, (*exchange).limit, (*exchange).authn, (*exchange).bind} {
			if refusal := step(x); refusal != nil {
				t.Fatalf("%s: %v", name, refusal)
			}
		}
		var refusal *wire.Refusal
		for i, step := range steps {
			if i == at {
				r.revoke(p)
			}
			if refusal = step(x); refusal != nil {
				break
			}
			if n := r.alive(p); n != 1 {
				t.Errorf("%s: %d are registered after step %d", name, n, i)
			}
		}
		if at == len(steps) {
			r.revoke(p)
		}
		var cause *wire.Refusal
		if refusal == nil && !errors.As(context.Cause(x.ctx), &cause) {
			t.Errorf("%s: neither refused nor cut", name)
		}
		x.release()
		x.slot.Release()
		x.cancel(nil)
	}
}
