package gateway

import (
	"context"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	probeEvery   = 5 * time.Second
	probeTimeout = 8 * time.Second
	proveEvery   = 5 * time.Minute
	proveTimeout = 20 * time.Second
	// proofLife is how long a proof counts while no newer one can be had: three
	// periods. Rights change behind the gateway's back, and an API server that
	// answers everything but the question about them is no reason to go on.
	proofLife = 3 * proveEvery
)

// Conditions that need the operator. They are shown as metrics and logged when
// they change.
const (
	ConditionUnreachable  = "Unreachable"
	ConditionUnproven     = "ConstrainedUnproven"
	ConditionTooWide      = "ImpersonationTooWide"
	ConditionRBACStale    = "RBACStale"
	ConditionUnknownState = "NotProvenYet"
)

// health is what is known of the way to the cluster and of the account there.
type health struct {
	probed  bool // the API server answered the last probe
	proof   impersonate.Proof
	proven  time.Time         // when proof was found, zero before the first
	holding map[string]string // conditions that hold, with their detail
}

// Condition is something that needs the operator.
type Condition struct {
	Type   string
	Detail string
}

// Conditions lists what holds now.
func (k *Kube) Conditions() []Condition {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []Condition
	for _, name := range []string{ConditionUnreachable, ConditionUnknownState, ConditionTooWide, ConditionUnproven, ConditionRBACStale} {
		if detail, ok := k.health.holding[name]; ok {
			list = append(list, Condition{name, detail})
		}
	}
	return list
}

// Reachable reports whether the cluster can be used now, as far as is known: it
// serves the catalogue, while requests are tried all the same.
func (k *Kube) Reachable() bool {
	if k.unusable() != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.health.probed
}

// unusable says why no request may be sent, nil when they may. Before the first
// proof nobody knows what the account can do. An account that is too wide for its
// profile fails closed: in both profiles a group that zt did not give, such as
// system:masters, would be one mistake away.
func (k *Kube) unusable() *wire.Refusal {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.health.proof.Standing == impersonate.TooWide:
		return wire.Refuse(wire.ReasonRBACStale, "tell your administrator to apply what `zt-gateway rbac` prints",
			"the gateway's account in the cluster may impersonate more than its profile says, so it is not used")
	case k.health.proof.Standing == impersonate.Unknown && !k.health.proven.IsZero():
		return wire.Refuse(wire.ReasonClusterDown, "try again in a minute, and tell your administrator if it stays so",
			"the gateway could not find out for %d minutes what its account in the cluster may do, so it does not use it", proofLife/time.Minute)
	case k.health.proof.Standing == impersonate.Unknown:
		return wire.Refuse(wire.ReasonClusterDown, "try again in a minute",
			"the cluster's API server has not answered the gateway yet")
	}
	return nil
}

// watch probes and proves until ctx ends.
func (k *Kube) watch(ctx context.Context) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		k.check(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// check is one round. The proof is asked for again when it is old, when it was
// never had, when the policies have changed, and after an upstream 403 has made
// it doubtful.
func (k *Kube) check(ctx context.Context) {
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	err := k.upstream.Probe(probe)
	cancel()
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	needs, users, version := k.needs()
	due := k.health.proof.Standing == impersonate.Unknown || version != k.provenFor || k.o.Now().Sub(k.checked) >= proveEvery
	k.mu.Unlock()

	var proof impersonate.Proof
	var proofErr error
	if err == nil && due {
		ask, cancel := context.WithTimeout(ctx, proveTimeout)
		proof, proofErr = k.prover.Prove(ask, needs, users)
		cancel()
	}
	k.learn(func(h *health) {
		h.probed = err == nil
		h.set(ConditionUnreachable, err != nil, text(err))
		if err != nil || proofErr != nil {
			h.age(k.o.Now(), proofErr)
			return
		}
		if !due {
			return
		}
		k.checked, k.provenFor = k.o.Now(), version
		h.proof, h.proven = proof, k.checked
		h.set(ConditionUnknownState, false, "")
		h.set(ConditionTooWide, proof.Standing == impersonate.TooWide, proof.Detail)
		h.set(ConditionUnproven, proof.Standing == impersonate.Unproven, proof.Detail)
		h.set(ConditionRBACStale, proof.Missing != "", "missing: "+proof.Missing)
	})
}

// age is a round in which nothing was found out of the account, because of err
// or because the API server does not answer at all. What was proven stays proven
// for proofLife; so does what was asked singly, which is the same promise from the
// same answers. What is too wide stays too wide.
func (h *health) age(now time.Time, err error) {
	if s := h.proof.Standing; (s == impersonate.Proven || s == impersonate.Unproven) && now.Sub(h.proven) > proofLife {
		h.proof = impersonate.Proof{}
		h.set(ConditionUnproven, false, "")
		h.set(ConditionUnknownState, true, "the last proof is too old")
	}
	if err != nil && h.proof.Standing == impersonate.Unknown {
		h.set(ConditionUnknownState, true, err.Error())
	}
}

// stale notes that upstream refused the account itself, and has the proof asked
// for again at the next round.
func (k *Kube) stale(detail string) {
	k.learn(func(h *health) {
		h.set(ConditionRBACStale, true, detail)
		k.checked = time.Time{}
	})
}

// learn changes what is known and tells those who want to know.
func (k *Kube) learn(change func(*health)) {
	before := k.Reachable()
	was := k.Conditions()
	k.mu.Lock()
	if k.health.holding == nil {
		k.health.holding = map[string]string{}
	}
	change(&k.health)
	k.mu.Unlock()

	k.report(was, k.Conditions())
	if after := k.Reachable(); after != before {
		k.log.Info("cluster is usable or not", "reachable", after)
		k.o.Metrics.Reachable(k.name, after)
		k.o.Changed()
	}
}

func (k *Kube) report(was, is []Condition) {
	held := map[string]bool{}
	for _, c := range was {
		held[c.Type] = true
	}
	for _, c := range is {
		if !held[c.Type] {
			k.log.Warn("condition", "condition", c.Type, "detail", c.Detail)
			k.o.Metrics.Condition("cluster/"+string(k.name), c.Type, true)
		}
		delete(held, c.Type)
	}
	for condition := range held {
		k.log.Info("condition is over", "condition", condition)
		k.o.Metrics.Condition("cluster/"+string(k.name), condition, false)
	}
}

func (h *health) set(condition string, holds bool, detail string) {
	if holds {
		h.holding[condition] = detail
	} else {
		delete(h.holding, condition)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
