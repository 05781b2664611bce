package agent_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// Whom an administrator has locked out is not sent to a login, which would end in
// the same refusal; one that he asks for by name is his to try.
func TestRevokedIsNotSentToALogin(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	const hint = "ask the administrators of zt"
	for _, id := range gatewaytest.Read(r.gw, func(s *gatewaytest.State) (ids []wire.SessionID) {
		for id := range s.Sessions {
			ids = append(ids, id)
		}
		return ids
	}) {
		r.gw.Push(wire.Event{Kind: wire.EventSession, Session: &wire.SessionChange{
			Session: id, Ended: true, Reason: "user alice was revoked", Cause: wire.ReasonRevoked, Hint: hint,
		}})
	}
	eventually(t, "the end arrives", func() bool {
		_, err := r.credential(false)
		return err != nil
	})
	opened := r.opened.Load()
	for _, attended := range []bool{false, true} {
		_, err := r.credential(attended)
		f := wantFault(t, err, fault.ExitRefused, "user alice was revoked")
		if diff := cmp.Diff([]string{hint}, f.Hints); diff != "" {
			t.Error(diff)
		}
	}
	if r.opened.Load() != opened {
		t.Error("a login page was shown")
	}
	r.login()
	if _, err := r.credential(false); err != nil {
		t.Error(err)
	}
}
