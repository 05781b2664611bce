package revoke

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rounds is a full count with ZT_SOAK and a twentieth of it without.
func rounds(full int) int {
	if os.Getenv("ZT_SOAK") != "" {
		return full
	}
	return full / 20
}

func revocations(specs ...v1alpha1.RevocationSpec) []*v1alpha1.Revocation {
	var rs []*v1alpha1.Revocation
	for i, spec := range specs {
		rs = append(rs, &v1alpha1.Revocation{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("r%d", i)}, Spec: spec})
	}
	return rs
}

func at(sequence uint64) wire.Epoch { return wire.Epoch{Generation: 1, Sequence: sequence} }

const aliceKey = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

// population is what lives in a small world: three people on four devices, each
// with tunnels, requests and watches on two clusters.
func population() map[string]Facts {
	all := map[string]Facts{}
	for _, p := range []struct {
		name, device, session, serial string
		groups                        []string
		roles                         []wire.Role
	}{
		{"alice", "alice-laptop", "s1", "0a", []string{"employees"}, []wire.Role{"dev", "read"}},
		{"alice", "alice-desktop", "s2", "0b", []string{"employees"}, []wire.Role{"dev"}},
		{"bob", "bob-laptop", "s3", "0c", []string{"contractors"}, []wire.Role{"read"}},
		{"carol", "carol-laptop", "s4", "0d", []string{"employees", "all-admins"}, []wire.Role{"admin", "dev"}},
	} {
		f := Facts{
			User: wire.User{Issuer: "https://idp", Subject: wire.Subject(p.name + "-sub"), Name: wire.Username(p.name)}, Groups: p.groups,
			Device: wire.DeviceID(p.device), Session: wire.SessionID(p.session), Serial: p.serial, Epoch: at(10),
		}
		all[p.session+" tunnel"] = f
		for _, cluster := range []wire.ClusterName{"prod", "test"} {
			f.Cluster, f.Roles = cluster, p.roles
			all[fmt.Sprintf("%s watch %s", p.session, cluster)] = f
		}
	}
	// A further issuer's person, without tunnel, certificate or device.
	all["ci prod"] = Facts{User: wire.User{Issuer: "https://ci", Subject: "x", Name: "ci:x"}, Cluster: "prod", Roles: []wire.Role{"deploy"}, Epoch: at(10)}
	all["key only"] = Facts{User: wire.User{Name: "dave"}, Key: aliceKey}
	return all
}

// TestV211 revokes by everything that can be revoked: exactly what is meant
// ends, is refused afterwards, and nothing else.
func TestV211ExactlyThatSet(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		spec v1alpha1.RevocationSpec
		cut  func(name string, f Facts) bool
		// kept: refused live, but a new request may come with the other roles.
		kept func(f Facts) bool
	}{
		{"user", v1alpha1.RevocationSpec{User: "alice"}, func(_ string, f Facts) bool { return f.User.Name == "alice" }, nil},
		{"user of a further issuer", v1alpha1.RevocationSpec{User: "ci:x"}, func(n string, _ Facts) bool { return n == "ci prod" }, nil},
		{"nobody by half a name", v1alpha1.RevocationSpec{User: "ali"}, func(string, Facts) bool { return false }, nil},
		{"nobody in another case", v1alpha1.RevocationSpec{User: "Alice"}, func(string, Facts) bool { return false }, nil},
		{"group", v1alpha1.RevocationSpec{Group: "employees"}, func(_ string, f Facts) bool { return slices.Contains(f.Groups, "employees") }, nil},
		{"group is no user", v1alpha1.RevocationSpec{Group: "alice"}, func(string, Facts) bool { return false }, nil},
		{"device", v1alpha1.RevocationSpec{Device: "alice-laptop"}, func(_ string, f Facts) bool { return f.Device == "alice-laptop" }, nil},
		{"device known by its key", v1alpha1.RevocationSpec{Device: string(trust.DeviceID(aliceKey))}, func(n string, _ Facts) bool { return n == "key only" }, nil},
		{"certificate", v1alpha1.RevocationSpec{Certificate: "0c"}, func(_ string, f Facts) bool { return f.Serial == "0c" }, nil},
		{"session", v1alpha1.RevocationSpec{Session: "s1"}, func(n string, _ Facts) bool { return strings.HasPrefix(n, "s1 ") }, nil},
		{
			"role",
			v1alpha1.RevocationSpec{Role: "dev"},
			func(_ string, f Facts) bool { return slices.Contains(f.Roles, "dev") },
			func(f Facts) bool { return len(f.Roles) > 1 },
		},
		{
			"role of one session",
			v1alpha1.RevocationSpec{Session: "s1", Roles: []string{"read"}},
			func(n string, f Facts) bool { return strings.HasPrefix(n, "s1 watch") },
			func(f Facts) bool { return true },
		},
		{"cluster", v1alpha1.RevocationSpec{Cluster: "prod"}, func(_ string, f Facts) bool { return f.Cluster == "prod" }, nil},
		{"nothing clear", v1alpha1.RevocationSpec{User: "alice", Group: "employees"}, func(string, Facts) bool { return false }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := New()
			all := population()
			var mu sync.Mutex
			var got, want []string
			for name, f := range all {
				t.Cleanup(r.Register(f, func(refusal *wire.Refusal) {
					mu.Lock()
					defer mu.Unlock()
					if refusal == nil || refusal.Message == "" {
						t.Errorf("%s was cut without a reason", name)
					}
					got = append(got, name)
				}))
				if refusal := r.Check(f); refusal != nil {
					t.Fatalf("refused before: %v", refusal)
				}
				if tt.cut(name, f) {
					want = append(want, name)
				}
			}
			n := r.Apply(revocations(tt.spec), at(20))
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" || n != len(want) {
				t.Errorf("cut %d (-want +got):\n%s", n, diff)
			}
			for name, f := range all {
				refused := tt.cut(name, f) && (tt.kept == nil || !tt.kept(f))
				if got := r.Check(f); (got != nil) != refused {
					t.Errorf("%s afterwards: %v, want refused %v", name, got, refused)
				}
			}
		})
	}
}

// TestV208 opens and revokes at the same time: nothing that belongs to the
// revoked is alive 2 s after Apply returned, whichever came first.
func TestV208RevokeRacesWithConnect(t *testing.T) {
	t.Parallel()
	for round := range rounds(1000) {
		r := New()
		victim := Facts{User: wire.User{Name: "alice"}, Device: "d", Session: "s"}
		other := Facts{User: wire.User{Name: "bob"}, Device: "e", Session: "t"}
		var alive, bystanders atomic.Int64
		start := make(chan struct{})
		var opening sync.WaitGroup
		// connect opens one stream; whoever is cut connects again at once, as
		// real clients do, while the rest is still being cut.
		var connect func(again bool)
		connect = func(again bool) {
			alive.Add(1)
			var once sync.Once
			die := func() { once.Do(func() { alive.Add(-1) }) }
			release := r.Register(victim, func(*wire.Refusal) {
				die()
				if again {
					connect(false)
				}
			})
			if r.Check(victim) != nil {
				release()
				die()
			}
		}
		connect(true)
		for range 8 {
			opening.Go(func() {
				<-start
				for range 20 {
					connect(true)
				}
			})
			opening.Go(func() {
				<-start
				r.Register(other, func(*wire.Refusal) { t.Error("a bystander was cut") })
				if r.Check(other) != nil {
					t.Error("a bystander was refused")
				}
				bystanders.Add(1)
			})
		}
		var applying sync.WaitGroup
		applying.Go(func() {
			<-start
			r.Apply(revocations(v1alpha1.RevocationSpec{User: "alice"}), at(1))
		})
		close(start)
		opening.Wait()
		applying.Wait()
		for deadline := time.Now().Add(2 * time.Second); alive.Load() != 0; {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: %d alive 2 s after the revocation", round, alive.Load())
			}
		}
		if bystanders.Load() != 8 {
			t.Fatalf("round %d: %d bystanders", round, bystanders.Load())
		}
	}
}

// A person who was revoked stays out, also with what was issued afterwards.
func TestUserStaysOut(t *testing.T) {
	t.Parallel()
	r := New()
	r.Apply(revocations(v1alpha1.RevocationSpec{User: "alice", Reason: "left the company"}), at(5))
	got := r.Check(Facts{User: wire.User{Name: "alice"}, Session: "new", Epoch: at(100)})
	want := &wire.Refusal{Reason: wire.ReasonRevoked, Message: "user alice was revoked: left the company", Hint: "ask the administrators of zt", Policy: "r0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Another name opens nothing to a person who was known by the revoked one.
func TestRenamedUserStaysOut(t *testing.T) {
	t.Parallel()
	r := New()
	list := revocations(v1alpha1.RevocationSpec{User: "alice"})
	list[0].Status.People = []v1alpha1.RevokedPerson{{Issuer: "https://idp", Subject: "1"}}
	alicia := Facts{User: wire.User{Issuer: "https://idp", Subject: "1", Name: "alicia"}}
	cut := make(chan *wire.Refusal, 1)
	defer r.Register(alicia, func(refusal *wire.Refusal) { cut <- refusal })()
	if n := r.Apply(list, at(1)); n != 1 {
		t.Fatalf("cut %d", n)
	}
	if got := <-cut; got.Reason != wire.ReasonRevoked || got.Message != "user alicia was revoked" {
		t.Errorf("%+v", got)
	}
	for _, other := range []wire.User{
		{Issuer: "https://idp", Subject: "2", Name: "alicia"},
		{Issuer: "https://other", Subject: "1", Name: "alicia"},
		{Name: "alicia"},
	} {
		if refusal := r.Check(Facts{User: other}); refusal != nil {
			t.Errorf("%+v: %v", other, refusal)
		}
	}
}

func TestSessionChangeSubtracts(t *testing.T) {
	t.Parallel()
	r := New()
	change := &v1alpha1.Revocation{
		Spec:   v1alpha1.RevocationSpec{Session: "s", Roles: []string{"admin"}},
		Status: v1alpha1.RevocationStatus{Epoch: "1.20"},
	}
	global := &v1alpha1.Revocation{Spec: v1alpha1.RevocationSpec{Role: "gone"}, Status: v1alpha1.RevocationStatus{Epoch: "1.5"}}
	r.Apply([]*v1alpha1.Revocation{change, global}, at(30))
	tests := []struct {
		name    string
		in      Facts
		removed string
		refused bool
	}{
		{"an older token", Facts{Session: "s", Roles: []wire.Role{"dev", "admin"}, Epoch: at(19)}, "admin", false},
		{"a token of that epoch was evaluated after it", Facts{Session: "s", Roles: []wire.Role{"dev", "admin"}, Epoch: at(20)}, "", false},
		{"a newer token", Facts{Session: "s", Roles: []wire.Role{"dev", "admin"}, Epoch: at(21)}, "", false},
		{"an older generation", Facts{Session: "s", Roles: []wire.Role{"dev", "admin"}, Epoch: wire.Epoch{Sequence: 99}}, "admin", false},
		{"another session", Facts{Session: "t", Roles: []wire.Role{"admin"}, Epoch: at(1)}, "", false},
		{"nothing is left", Facts{Session: "s", Roles: []wire.Role{"admin"}, Epoch: at(1)}, "admin", true},
		{"a role revoked for all, whatever the epoch", Facts{Session: "t", Roles: []wire.Role{"dev", "gone"}, Epoch: at(99)}, "gone", false},
		{"both", Facts{Session: "s", Roles: []wire.Role{"admin", "gone"}, Epoch: at(1)}, "admin gone", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var removed []string
			for _, role := range r.Removed(tt.in) {
				removed = append(removed, string(role))
			}
			if got := strings.Join(removed, " "); got != tt.removed {
				t.Errorf("removed %q, want %q", got, tt.removed)
			}
			if got := r.Check(tt.in); (got != nil) != tt.refused {
				t.Errorf("refused: %v, want %v", got, tt.refused)
			}
		})
	}
}

func TestAnOlderSetChangesNothing(t *testing.T) {
	t.Parallel()
	r := New()
	f := Facts{User: wire.User{Name: "alice"}}
	r.Apply(revocations(v1alpha1.RevocationSpec{User: "alice"}), at(2))
	r.Apply(nil, at(1))
	if r.Check(f) == nil {
		t.Error("an older set lifted a revocation")
	}
	r.Apply(nil, wire.Epoch{Generation: 2})
	if r.Check(f) != nil {
		t.Error("a newer set did not")
	}
}

func TestCutOnceAndRelease(t *testing.T) {
	t.Parallel()
	r := New()
	var cuts atomic.Int64
	count := func(*wire.Refusal) { cuts.Add(1) }
	f := Facts{User: wire.User{Name: "alice"}}
	release := r.Register(f, count)
	gone := r.Register(f, count)
	gone()
	gone()
	for i := range 3 {
		r.Apply(revocations(v1alpha1.RevocationSpec{User: "alice"}), at(uint64(i)))
	}
	if cuts.Load() != 1 {
		t.Errorf("cut %d times, want once", cuts.Load())
	}
	if len(r.Live()) != 1 {
		t.Errorf("live: %v", r.Live())
	}
	release()
	if len(r.Live()) != 0 {
		t.Errorf("live: %v", r.Live())
	}
}

// Callbacks that block delay neither the others nor Apply beyond 2 s.
func TestBlockedCallbacksHoldNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := New()
		stuck := make(chan struct{})
		f := Facts{User: wire.User{Name: "alice"}}
		var cut atomic.Int64
		for i := range 4000 {
			r.Register(f, func(*wire.Refusal) {
				cut.Add(1)
				if i%2 == 0 {
					<-stuck
				}
			})
		}
		begin := time.Now()
		r.Apply(revocations(v1alpha1.RevocationSpec{User: "alice"}), at(1))
		if d := time.Since(begin); d > 3*time.Second || cut.Load() != 4000 {
			t.Errorf("%d of 4000 were cut after %s", cut.Load(), d)
		}
		close(stuck)
		synctest.Wait()
	})
}

func BenchmarkRegisterCheckRelease(b *testing.B) {
	r := New()
	r.Apply(revocations(v1alpha1.RevocationSpec{User: "bob"}, v1alpha1.RevocationSpec{Session: "x"}), at(1))
	f := population()["s1 watch prod"]
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			release := r.Register(f, func(*wire.Refusal) {})
			if r.Check(f) != nil {
				b.Error("refused")
			}
			release()
		}
	})
}

func BenchmarkApply10000(b *testing.B) {
	r := New()
	for range 10_000 {
		r.Register(Facts{User: wire.User{Name: "bob"}, Session: "s", Roles: []wire.Role{"dev"}, Groups: []string{"a", "b"}}, func(*wire.Refusal) {})
	}
	for i := 0; b.Loop(); i++ {
		r.Apply(revocations(v1alpha1.RevocationSpec{User: "alice"}), at(uint64(i)))
	}
}
