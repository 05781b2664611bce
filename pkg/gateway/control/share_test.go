package control

import (
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// A further login ends the person's oldest session, and no more than that.
func TestOldestSessionMakesRoom(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	old := r.laptop().login("alice")
	bob := r.laptop().login("bob")
	record, _ := r.store.Session(old.cert.Session)
	record.Issued = record.Issued.Add(-time.Minute)
	if err := r.store.PutSession(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	ids := r.put(r.laptop().login("alice"), liveSessions-2)
	cut := make(chan *wire.Refusal, 1)
	defer r.registry.Register(r.Facts(old.identity()), func(refusal *wire.Refusal) { cut <- refusal })()

	l := r.laptop().login("alice")
	select {
	case refusal := <-cut:
		if refusal.Reason != wire.ReasonSessionEnded || !strings.Contains(refusal.Message, "more than 64 sessions") {
			t.Errorf("%+v", refusal)
		}
	case <-time.After(patience):
		t.Error("the oldest lives")
	}
	live := map[wire.SessionID]bool{}
	for _, record := range r.store.Sessions() {
		live[record.ID] = true
	}
	if len(live) != liveSessions+1 || live[old.cert.Session] || !live[l.cert.Session] || !live[bob.cert.Session] || !live[ids[0]] {
		t.Errorf("%d sessions live", len(live))
	}
}

// Logging in and out does not fill the state.
func TestSessionsOfOnePersonAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	l := r.laptop().login("alice")
	for _, id := range r.put(l, allSessions-1) {
		if err := r.markEnded(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	txn := l.check(wire.PurposeLogin)
	in := wire.SessionRequest{TXN: txn, IDToken: l.token("alice", nil)}
	got := mustRefuse(t, "one more", l.session(in), wire.ReasonLimit)
	if !strings.Contains(got.Message, "512 times") {
		t.Error(got.Message)
	}
	r.laptop().login("bob")
	r.clock.advance(37 * time.Hour) // a day after they would have ended
	r.laptop().login2(r, "alice")
}

// Devices that nobody approves are bounded for each person.
func TestPendingDevicesAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{config: func(c *v1alpha1.GatewayConfiguration) {
		c.Login.Enrolment = v1alpha1.EnrolmentApproval
		c.Limits.LoginsPerSourcePerMinute = 1000
	}})
	enrol := func(l *laptop, user string) *wire.Refusal {
		txn := l.check(wire.PurposeEnroll)
		return r.post(wire.PathDeviceEnroll, wire.EnrollRequest{TXN: txn, IDToken: l.token(user, nil)}, nil)
	}
	var last *laptop
	for range pendingDevices {
		last = r.laptop()
		if refusal := enrol(last, "alice"); refusal != nil {
			t.Fatal(refusal)
		}
	}
	next := r.laptop()
	if got := mustRefuse(t, "one more", enrol(next, "alice"), wire.ReasonLimit); !strings.Contains(got.Message, "16 devices") {
		t.Error(got.Message)
	}
	if _, known := r.store.Snapshot().Device(next.id); known {
		t.Error("it is known all the same")
	}
	if refusal := enrol(last, "alice"); refusal != nil {
		t.Errorf("a device that is known: %v", refusal)
	}
	if refusal := enrol(r.laptop(), "bob"); refusal != nil {
		t.Errorf("another person: %v", refusal)
	}
	r.load("devices.yaml", deviceManifest(last.id, "{approved: true}"))
	if refusal := enrol(next, "alice"); refusal != nil {
		t.Errorf("after one was approved: %v", refusal)
	}
}
