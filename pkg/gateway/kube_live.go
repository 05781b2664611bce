package gateway

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/wire"
)

// judgeEvery is how often a live stream is judged again when the policies have
// not changed: what they say may depend on the time.
const judgeEvery = 3 * time.Second

// expiryGrace is how long a stream may outlive a further issuer's token.
const expiryGrace = time.Minute

// judged is a request that was allowed and lives on: a watch, a log that is
// followed, an upgraded stream. What has been allowed to begin may go on only
// while it would still be allowed to.
type judged struct {
	who *authn.Identity
	in  policy.Input
	// left parts roles into those that still count and those that were revoked.
	left func([]wire.Role) (roles, taken []wire.Role)
	cut  func(*wire.Refusal)

	// by which it was judged last, and when; guarded by judgements.mu once it lives
	by *policy.Compiled
	at time.Time
}

// judgements are the live streams of one Kube.
type judgements struct {
	mu   sync.Mutex
	live map[*judged]struct{}
}

// add takes j in until release is called.
func (js *judgements) add(j *judged) (release func()) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.live == nil {
		js.live = map[*judged]struct{}{}
	}
	js.live[j] = struct{}{}
	return func() {
		js.mu.Lock()
		defer js.mu.Unlock()
		delete(js.live, j)
	}
}

// cutAll ends every live stream.
func (js *judgements) cutAll(refusal *wire.Refusal) {
	js.mu.Lock()
	live := slices.Collect(maps.Keys(js.live))
	js.mu.Unlock()
	for _, j := range live {
		j.cut(refusal)
	}
}

// again judges every live stream that was judged by other policies than those of
// now, or too long ago, and cuts what would not be allowed any more. Who began
// under policies that were exchanged meanwhile is found here as well, since each
// remembers by which it was judged. A further issuer's person must also still be
// accepted by the rules that accepted him.
func (js *judgements) again(by *policy.Compiled, further *authn.FurtherIssuers, now time.Time) {
	if by == nil {
		return
	}
	js.mu.Lock()
	var due []*judged
	ended := map[*judged]*wire.Refusal{}
	for j := range js.live {
		switch {
		case j.who.Kind == authn.Further && !further.Stands(j.who):
			ended[j] = wire.Refuse(wire.ReasonTokenInvalid, "try again with a new token", "the rules for tokens of %s have changed", j.who.User.Issuer)
		case j.who.Kind == authn.Further && now.After(j.who.Expires.Add(expiryGrace)):
			// Nothing renews such a token, and nobody else tells when its person has gone.
			ended[j] = wire.Refuse(wire.ReasonTokenExpired, "begin again with a new token", "the token that began this has expired")
		case j.by != by || now.Sub(j.at) >= judgeEvery || now.Before(j.at):
			j.by, j.at = by, now
			due = append(due, j)
		}
	}
	js.mu.Unlock()
	for j, refusal := range ended {
		j.cut(refusal)
	}
	for _, j := range due {
		j.in.Now = now
		if j.who.Kind == authn.Further {
			j.in.Roles, j.in.DenyRoles = j.left(j.who.RolesBy(by, func() []wire.Role {
				return by.Roles(policy.Subject{User: j.who.User, Groups: j.who.Groups, Device: j.who.Device})
			}))
		}
		if refusal := by.Decide(j.in).Refusal(); refusal != nil {
			j.cut(refusal)
		}
	}
}
