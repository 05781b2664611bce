package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

func seen(owner string) v1alpha1.DeviceStatus {
	return v1alpha1.DeviceStatus{
		Thumbprint: laptopJT, Owner: owner, OwnerIssuer: "https://idp", OwnerSubject: owner + "-sub",
		Tier: v1alpha1.TierSoftware, Platform: "linux", Hostname: "laptop", Phase: v1alpha1.DevicePending,
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	type view struct {
		Owner, Subject    string
		Ownership         v1alpha1.DeviceOwnership
		Approved, Revoked bool
		Phase             v1alpha1.DevicePhase
	}
	approvedByHand := seen("alice")
	approvedByHand.Phase = v1alpha1.DeviceApproved
	revokedByHand := seen("alice")
	revokedByHand.Phase = v1alpha1.DeviceRevoked
	pending := seen("alice")
	tests := []struct {
		name    string
		wish    *v1alpha1.DeviceSpec
		seen    *v1alpha1.DeviceStatus
		revoked bool
		want    view
	}{
		{"seen only", nil, &pending, false, view{"alice", "alice-sub", "personal", false, false, "Pending"}},
		{"wished only", &v1alpha1.DeviceSpec{Owner: "bob", Ownership: "corporate", Approved: true}, nil, false, view{"bob", "", "corporate", true, false, "Approved"}},
		{"approved by manifest", &v1alpha1.DeviceSpec{Ownership: "corporate", Approved: true}, &pending, false, view{"alice", "alice-sub", "corporate", true, false, "Approved"}},
		{"approved by command line", nil, &approvedByHand, false, view{"alice", "alice-sub", "personal", true, false, "Approved"}},
		{"the manifest is stricter", &v1alpha1.DeviceSpec{Ownership: "personal"}, &approvedByHand, false, view{"alice", "alice-sub", "personal", false, false, "Pending"}},
		{"revoked by manifest", &v1alpha1.DeviceSpec{Ownership: "corporate", Approved: true, Revoked: true}, &approvedByHand, false, view{"alice", "alice-sub", "corporate", false, true, "Revoked"}},
		{"revoked by hand, approved by manifest", &v1alpha1.DeviceSpec{Ownership: "corporate", Approved: true}, &revokedByHand, false, view{"alice", "alice-sub", "corporate", false, true, "Revoked"}},
		{"on the deny-list", &v1alpha1.DeviceSpec{Ownership: "corporate", Approved: true}, &pending, true, view{"alice", "alice-sub", "corporate", false, true, "Revoked"}},
		{"given to somebody else", &v1alpha1.DeviceSpec{Owner: "bob", Ownership: "personal", Approved: true}, &pending, false, view{"bob", "", "personal", true, false, "Approved"}},
		{"named as its owner", &v1alpha1.DeviceSpec{Owner: "alice", Ownership: "personal"}, &pending, false, view{"alice", "alice-sub", "personal", false, false, "Pending"}},
		{"nothing", nil, nil, false, view{"", "", "personal", false, false, "Pending"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var wish *v1alpha1.Device
			if tt.wish != nil {
				wish = &v1alpha1.Device{Spec: *tt.wish}
			}
			d := merge(laptop, wish, tt.seen, tt.revoked)
			got := view{d.Spec.Owner, d.Status.OwnerSubject, d.Spec.Ownership, d.Spec.Approved, d.Spec.Revoked, d.Status.Phase}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestObserveDevice(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	ctx := t.Context()
	d, err := s.ObserveDevice(ctx, laptop, seen("alice"))
	if err != nil || d.Spec.Owner != "alice" || d.Status.FirstSeen.IsZero() || d.Status.Revision == 0 || d.Name != string(laptop) {
		t.Fatalf("%+v, %v", d, err)
	}
	before := s.journal.size
	again, err := s.ObserveDevice(ctx, laptop, seen("alice"))
	if diff := cmp.Diff(d, again); diff != "" || err != nil || s.journal.size != before {
		t.Errorf("seen again: %v, %d bytes written\n%s", err, s.journal.size-before, diff)
	}
	if _, err := s.ObserveDevice(ctx, laptop, seen("bob")); !errors.Is(err, ErrOwned) {
		t.Errorf("bob: %v", err)
	}
	other := seen("alice")
	other.Thumbprint = "another"
	if _, err := s.ObserveDevice(ctx, laptop, other); err == nil {
		t.Error("another key took the id")
	}
	moved := seen("alice")
	moved.Hostname, moved.Phase, moved.Owner = "desk", "", "alice.b"
	if d, err = s.ObserveDevice(ctx, laptop, moved); err != nil || d.Status.Hostname != "desk" || d.Spec.Owner != "alice.b" {
		t.Errorf("%+v, %v", d, err)
	}
	if got, ok := s.Snapshot().Device(laptop); !ok || got.Status.Hostname != "desk" {
		t.Errorf("snapshot: %+v", got)
	}
	s = reopen(t, s, Options{})
	if got, ok := s.Snapshot().Device(laptop); !ok || got.Status.Hostname != "desk" || !got.Status.FirstSeen.Equal(&d.Status.FirstSeen) {
		t.Errorf("after a restart: %+v", got)
	}
	if _, err := s.ObserveDevice(ctx, "", seen("x")); err == nil {
		t.Error("a device without an id")
	}
}

// Many people come at once with one key: one becomes the owner.
func TestFirstOwnerWins(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	var owners atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			d, err := s.ObserveDevice(t.Context(), laptop, seen(fmt.Sprint("person", i)))
			switch {
			case err == nil && d.Spec.Owner == fmt.Sprint("person", i):
				owners.Add(1)
			case !errors.Is(err, ErrOwned):
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	all.Wait()
	if owners.Load() != 1 {
		t.Errorf("%d owners", owners.Load())
	}
}

func TestManifestGivesDeviceAway(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	s := open(t, dir, Options{})
	ctx := t.Context()
	if _, err := s.ObserveDevice(ctx, laptop, seen("alice")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "devices.yaml", device(string(laptop), "owner: bob, ownership: corporate"))
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ObserveDevice(ctx, laptop, seen("alice")); !errors.Is(err, ErrOwned) {
		t.Errorf("alice: %v", err)
	}
	d, err := s.ObserveDevice(ctx, laptop, seen("bob"))
	if err != nil || d.Spec.Owner != "bob" || d.Status.OwnerSubject != "bob-sub" || d.Spec.Ownership != v1alpha1.OwnershipCorporate {
		t.Errorf("bob: %+v, %v", d, err)
	}
	// Without the manifest the device stays with whom it was given to.
	put(t, dir, "devices.yaml", "")
	if err := s.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if d, _ := s.Snapshot().Device(laptop); d.Spec.Owner != "bob" || d.Spec.Ownership != v1alpha1.OwnershipPersonal {
		t.Errorf("afterwards: %+v", d)
	}
}

// Whoever was revoked stays revoked, though every file that said so is gone.
func TestRevocationsOutliveTheirFiles(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal+roleDev)
	s := open(t, dir, Options{})
	ctx := t.Context()
	reload := func() {
		t.Helper()
		if err := s.Reload(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.ObserveDevice(ctx, laptop, seen("alice")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "r.yaml", revocation("leaver", "user: bob, reason: left")+revocation("role", "role: dev")+device(string(laptop), "approved: true, revoked: true"))
	reload()
	want := []string{"user bob", "role dev", "device " + string(laptop)}
	if diff := cmp.Diff(want, targets(s)); diff != "" {
		t.Error(diff)
	}
	for _, r := range s.Snapshot().Revocations {
		var e wire.Epoch
		if err := e.UnmarshalText([]byte(r.Status.Epoch)); err != nil || s.Snapshot().Epoch.Less(e) || r.Spec.At.IsZero() || r.Spec.By != "config" {
			t.Errorf("%+v", r)
		}
	}
	// The same name for another person revokes both.
	put(t, dir, "r.yaml", revocation("leaver", "user: carol"))
	reload()
	put(t, dir, "r.yaml", "")
	reload()
	want = append(want, "user carol")
	if diff := cmp.Diff(want, targets(s)); diff != "" {
		t.Error(diff)
	}
	put(t, dir, "d.yaml", device(string(laptop), "approved: true"))
	reload()
	s = reopen(t, s, Options{})
	if diff := cmp.Diff(want, targets(s)); diff != "" {
		t.Error(diff)
	}
	if d, _ := s.Snapshot().Device(laptop); !d.Spec.Revoked || d.Spec.Approved || d.Status.Phase != v1alpha1.DeviceRevoked {
		t.Errorf("the device: %+v", d)
	}
	before := s.journal.size
	put(t, dir, "r.yaml", revocation("leaver", "user: carol"))
	reload()
	put(t, dir, "r.yaml", revocation("leaver", "user: bob, reason: left"))
	reload()
	if s.journal.size != before {
		t.Error("what is in force was written again")
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	ctx := t.Context()
	if _, err := s.ObserveDevice(ctx, laptop, seen("alice")); err != nil {
		t.Fatal(err)
	}
	first, err := s.Revoke(ctx, v1alpha1.RevocationSpec{Device: string(laptop)}, "carol")
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := s.Snapshot().Device(laptop); d.Status.Phase != v1alpha1.DeviceRevoked {
		t.Errorf("the device is %s", d.Status.Phase)
	}
	if s.Snapshot().Epoch != first {
		t.Errorf("snapshot of %s, revoked at %s", s.Snapshot().Epoch, first)
	}
	if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "a"}, "carol"); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Revoke(ctx, v1alpha1.RevocationSpec{Device: string(laptop)}, "dave"); err != nil || again != first {
		t.Errorf("again: %s, %v, want %s", again, err, first)
	}

	// Changes of a session: each is new, and takes the place of what it includes.
	change := func(roles ...string) wire.Epoch {
		t.Helper()
		e, err := s.Revoke(ctx, v1alpha1.RevocationSpec{Session: "s", Roles: roles}, "control")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	a, b := change("dev"), change("dev")
	if !a.Less(b) {
		t.Errorf("%s, then %s", a, b)
	}
	change("ops")
	c := change("dev", "ops")
	if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{Session: "s"}, "control"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		want := []string{"device " + string(laptop), "user a", "session s", "session s"}
		if diff := cmp.Diff(want, targets(s)); diff != "" {
			t.Error(diff)
		}
		if r := s.Snapshot().Revocations[2]; epochOf(r) != c || len(r.Spec.Roles) != 2 {
			t.Errorf("%+v", r)
		}
	}
	check()
	s = reopen(t, s, Options{})
	check()

	for _, bad := range []v1alpha1.RevocationSpec{{}, {User: "a", Group: "b"}, {User: "a", Roles: []string{"b"}}} {
		if _, err := s.Revoke(ctx, bad, "x"); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// A name that somebody has given to another revocation swallows none.
func TestNameThatIsTaken(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	bob := v1alpha1.RevocationSpec{User: "bob"}
	lost := v1alpha1.RevocationSpec{Device: string(laptop)}
	put(t, dir, "r.yaml", revocation(revocationName(&bob), "user: carol")+revocation(revocationName(&lost), "user: dave"))
	s := open(t, dir, Options{})
	epoch, err := s.Revoke(t.Context(), bob, "test")
	if err != nil {
		t.Fatal(err)
	}
	if epoch != s.Snapshot().Epoch {
		t.Errorf("holds from %s, the state is of %s", epoch, s.Snapshot().Epoch)
	}
	put(t, dir, "d.yaml", device(string(laptop), "revoked: true"))
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"user carol", "user dave", "user bob", "device " + string(laptop)}
	for range 2 {
		if diff := cmp.Diff(want, targets(s)); diff != "" {
			t.Error(diff)
		}
		names := map[string]bool{}
		for _, r := range s.Snapshot().Revocations {
			names[r.Name] = true
		}
		if len(names) != len(want) {
			t.Errorf("names %v", names)
		}
		s = reopen(t, s, Options{})
	}
	if got := len(digest("x")); got != 64 {
		t.Errorf("a name has %d digits, want all of SHA-256", got)
	}
}

// Who is known by a revoked name is remembered as the issuer knows him.
func TestRevokedNameKeepsItsPeople(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	ctx := t.Context()
	if _, err := s.ObserveDevice(ctx, laptop, seen("alice")); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for id, user := range map[wire.SessionID]wire.User{
		"s1": {Issuer: "https://idp", Subject: "alice-sub", Name: "alice"},
		"s2": {Issuer: "https://idp", Subject: "alice-2", Name: "alice"},
		"s3": {Issuer: "https://idp", Subject: "bob-sub", Name: "bob"},
	} {
		if err := s.PutSession(ctx, SessionRecord{ID: id, User: user, Issued: now, End: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, spec := range []v1alpha1.RevocationSpec{{User: "alice"}, {User: "nobody"}, {Group: "alice"}} {
		if _, err := s.Revoke(ctx, spec, "test"); err != nil {
			t.Fatal(err)
		}
	}
	want := [][]v1alpha1.RevokedPerson{{{Issuer: "https://idp", Subject: "alice-2"}, {Issuer: "https://idp", Subject: "alice-sub"}}, nil, nil}
	for range 2 {
		var got [][]v1alpha1.RevokedPerson
		for _, r := range s.Snapshot().Revocations {
			got = append(got, r.Status.People)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		s = reopen(t, s, Options{})
	}
}

// A role that comes and goes is taken from every session each time. What one of
// them costs must not grow with the number of sessions.
func TestManySessionsChangeAgain(t *testing.T) { // alone: it counts allocations
	const n = 2000
	s := newState()
	change := func(round, session int) {
		r := &v1alpha1.Revocation{Spec: v1alpha1.RevocationSpec{Session: fmt.Sprint("s", session), Roles: []string{"dev"}}}
		r.Name = fmt.Sprint("change-", round, "-", session)
		s.apply(operation{Revoke: r})
	}
	for i := range n {
		change(0, i)
	}
	round := 0
	if allocations := testing.AllocsPerRun(10, func() { round++; change(round, 7) }); allocations > n/4 {
		t.Errorf("%v allocations for one change beside %d sessions", allocations, n)
	}
	if len(s.Revocations) != n || len(s.byName) != n || len(s.byTarget) != n || len(s.changes) != n || s.byName[fmt.Sprint("change-", round, "-7")] == nil {
		t.Errorf("%d in force, %d names, %d targets, %d sessions", len(s.Revocations), len(s.byName), len(s.byTarget), len(s.changes))
	}
}

// A wrong date in a manifest does not let a revocation be forgotten early.
func TestOldDateForgetsNothing(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	put(t, dir, "revoked.yaml", revocation("s", "session: abcdefgh, at: 2020-01-01T00:00:00Z")+revocation("c", "certificate: 0a0b0c0d, at: 2020-01-01T00:00:00Z"))
	s := open(t, dir, Options{})
	if err := s.compact(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, Options{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.st.Revocations); n != 2 || s.st.Sequence > 5 {
		t.Errorf("%d revocations at sequence %d", n, s.st.Sequence)
	}
}
