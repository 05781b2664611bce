package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/revoke"
	"github.com/kube-zt/zt/pkg/wire"
)

// faulty fails writes or flushes while its switches are on.
type faulty struct {
	*os.File
	mu          sync.Mutex
	write, sync error
	half        bool // a failing write leaves half of its bytes
}

func (f *faulty) set(write, sync error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write, f.sync = write, sync
}

func (f *faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.write == nil {
		return f.File.Write(p)
	}
	n := 0
	if f.half {
		n, _ = f.File.Write(p[:len(p)/2])
	}
	return n, f.write
}

func (f *faulty) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

// breakDisk makes the journal and every other file in state/ fail, until heal.
func breakDisk(t testing.TB, s *Store, write, sync error, half bool) (heal func()) {
	t.Helper()
	s.mu.Lock()
	disk := &faulty{File: s.journal.f.(*os.File), half: half, write: write, sync: sync}
	s.journal.f = disk
	s.mu.Unlock()
	if err := os.Rename(s.state, s.state+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		disk.set(nil, nil)
		if err := os.Rename(s.state+".away", s.state); err != nil {
			t.Fatal(err)
		}
	}
}

var errFull = errors.New("no space left on device")

// What takes away holds although the disk fails, and is written as soon as that
// is possible; what gives has not happened.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		write, sync error
		half        bool
	}{
		{"full", errFull, nil, true},
		{"cannot write", errors.New("input/output error"), nil, false},
		{"cannot flush", nil, errors.New("input/output error"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := directory(t, minimal)
			synctest.Test(t, func(t *testing.T) {
				var told []Health
				log, lines := logged()
				s := open(t, dir, Options{Logger: log, OnWrite: func(h Health) { told = append(told, h) }})
				ctx := t.Context()
				before, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "before"}, "test")
				if err != nil {
					t.Fatal(err)
				}
				heal := breakDisk(t, s, tt.write, tt.sync, tt.half)
				signal := s.Subscribe(ctx)
				if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "during"}, "test"); !errors.Is(err, ErrNotDurable) {
					t.Errorf("a revocation that is not on the disk: %v", err)
				}
				select {
				case <-signal:
				default:
					t.Error("nobody was told")
				}
				during := s.Snapshot().Epoch
				if !before.Less(during) {
					t.Errorf("epoch %s after %s", during, before)
				}
				if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "during"}, "test"); !errors.Is(err, ErrNotDurable) {
					t.Errorf("asked again: %v", err)
				}
				if s.Snapshot().Epoch != during {
					t.Error("the same revocation made another epoch")
				}
				if _, err := s.ObserveDevice(ctx, laptop, seen("alice")); err == nil || errors.Is(err, ErrNotDurable) {
					t.Errorf("a device was given to somebody: %v", err)
				}
				if err := s.UseOnce(ctx, "h", time.Now().Add(time.Hour)); err == nil || errors.Is(err, ErrNotDurable) {
					t.Errorf("a hash was used: %v", err)
				}
				if _, ok := s.Snapshot().Device(laptop); ok {
					t.Error("the device is known")
				}
				want := []string{"user before", "user during"}
				if diff := cmp.Diff(want, targets(s)); diff != "" {
					t.Error(diff)
				}
				if !strings.Contains(lines(), "what it takes away is in force and would be lost with the process") {
					t.Error(lines())
				}
				synctest.Wait()
				if h := told[len(told)-1]; h.Failing == nil || !h.NotDurable {
					t.Errorf("told %+v", told)
				}

				heal()
				time.Sleep(longestRetry) // on the bubble's clock
				synctest.Wait()
				if h := told[len(told)-1]; h.Failing != nil || h.NotDurable {
					t.Errorf("not healed by itself: %+v", told)
				}
				if epoch, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "during"}, "test"); err != nil || epoch != during {
					t.Errorf("the epoch changed by writing it: %s, %v, want %s", epoch, err, during)
				}
				if after, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "after"}, "test"); err != nil || !during.Less(after) {
					t.Errorf("not healed: %s, %v", after, err)
				}
				s = reopen(t, s, Options{})
				if diff := cmp.Diff(append(want, "user after"), targets(s)); diff != "" {
					t.Error(diff)
				}
				if err := s.UseOnce(ctx, "h", time.Now().Add(time.Hour)); err != nil {
					t.Errorf("a use that failed has happened: %v", err)
				}
			})
		})
	}
}

// The pause between attempts grows to a bound, and Close waits for the one who
// tries and tries once more itself.
func TestPersistEnds(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir, Options{})
		heal := breakDisk(t, s, errFull, nil, false)
		if _, err := s.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "mallory"}, "test"); !errors.Is(err, ErrNotDurable) {
			t.Fatal(err)
		}
		time.Sleep(10 * longestRetry)
		heal()
		s = reopen(t, s, Options{})
		if diff := cmp.Diff([]string{"user mallory"}, targets(s)); diff != "" {
			t.Errorf("closing lost it: %s", diff)
		}
	})
	dir = directory(t, minimal)
	log, lines := logged()
	s := open(t, dir, Options{Logger: log})
	heal := breakDisk(t, s, errFull, nil, false)
	if _, err := s.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "mallory"}, "test"); !errors.Is(err, ErrNotDurable) {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(lines(), "revocations are lost") {
		t.Errorf("closed over a failing disk: %v; %s", err, lines())
	}
	heal()
}

// TestKeptBetweenCrashes: the record of a batch that failed may stand in the old
// journal beside the snapshot that healed it.
func TestKeptBetweenCrashes(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	disk := &faulty{File: s.journal.f.(*os.File), sync: errors.New("input/output error")}
	s.journal.f = disk // the record is written whole and not flushed
	s.mu.Lock()
	var batch []*write
	for _, o := range []operation{
		{Use: &useOperation{Hash: "h", Expires: time.Now().Add(time.Hour)}},
		{Revoke: &v1alpha1.Revocation{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: v1alpha1.RevocationSpec{User: "mallory"}}},
		{Session: &SessionRecord{ID: "s", End: time.Now().Add(time.Hour)}},
	} {
		w, err := s.enqueue(o)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, w)
	}
	s.mu.Unlock()
	for _, w := range batch {
		if err := w.wait(t.Context()); err == nil {
			t.Fatal("written")
		}
	}
	journal, err := os.ReadFile(filepath.Join(s.state, journalName))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := s.Snapshot().Revocations
	if err := errors.Join(s.Close(), os.WriteFile(filepath.Join(s.state, journalName), journal, 0o600)); err != nil {
		t.Fatal(err)
	}
	s = open(t, filepath.Dir(s.state), Options{})
	if diff := cmp.Diff(want, s.Snapshot().Revocations); diff != "" {
		t.Error(diff)
	}
	if _, ok := s.Session("s"); ok {
		t.Error("what failed has happened")
	}
}

// TestV207FailingDisk: a live stream ends by a revocation that cannot be written,
// and only those that it means (V211). A token of before is caught by a change of
// its session, one of after is not.
func TestV207FailingDisk(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spec  v1alpha1.RevocationSpec
		facts func(*revoke.Facts)
	}{
		"user":    {v1alpha1.RevocationSpec{User: "mallory"}, func(f *revoke.Facts) { f.User.Name = "mallory" }},
		"device":  {v1alpha1.RevocationSpec{Device: string(laptop)}, func(f *revoke.Facts) { f.Device = laptop }},
		"session": {v1alpha1.RevocationSpec{Session: "stolen"}, func(f *revoke.Facts) { f.Session = "stolen" }},
		"role":    {v1alpha1.RevocationSpec{Role: "admin"}, func(f *revoke.Facts) { f.Roles = []wire.Role{"dev", "admin"} }},
		"group":   {v1alpha1.RevocationSpec{Group: "ops"}, func(f *revoke.Facts) { f.Groups = []string{"dev", "ops"} }},
		"serial":  {v1alpha1.RevocationSpec{Certificate: "0a"}, func(f *revoke.Facts) { f.Serial = "0a" }},
		"cluster": {v1alpha1.RevocationSpec{Cluster: "prod"}, func(f *revoke.Facts) { f.Cluster = "prod" }},
		"change":  {v1alpha1.RevocationSpec{Session: "s", Roles: []string{"dev"}}, func(f *revoke.Facts) { f.Session = "s" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := directory(t, minimal)
			synctest.Test(t, func(t *testing.T) {
				s, registry := open(t, dir, Options{}), revoke.New()
				ctx, cancel := context.WithCancel(t.Context())
				signal := s.Subscribe(ctx)
				var following sync.WaitGroup
				following.Go(func() {
					for {
						select {
						case <-ctx.Done():
							return
						case <-signal:
							registry.Apply(s.Snapshot().Revocations, s.Snapshot().Epoch)
						}
					}
				})
				defer following.Wait()
				defer cancel()
				live := func(change func(*revoke.Facts)) *bool {
					f, dead := revoke.Facts{User: wire.User{Name: "alice"}, Session: "other", Roles: []wire.Role{"dev"}, Epoch: s.Snapshot().Epoch}, new(bool)
					change(&f)
					registry.Register(f, func(*wire.Refusal) { *dead = true })
					return dead
				}
				thief, other := live(tt.facts), live(func(*revoke.Facts) {})

				heal := breakDisk(t, s, errFull, nil, true)
				start := time.Now()
				if _, err := s.Revoke(ctx, tt.spec, "test"); !errors.Is(err, ErrNotDurable) {
					t.Error(err)
				}
				synctest.Wait()
				if !*thief || *other || time.Since(start) > 2*time.Second {
					t.Errorf("after %s: the thief is cut %t, another %t", time.Since(start), *thief, *other)
				}
				f := revoke.Facts{Roles: []wire.Role{"dev"}, Epoch: s.Snapshot().Epoch}
				tt.facts(&f)
				refused := registry.Check(f) != nil || len(registry.Removed(f)) > 0
				if later := len(tt.spec.Roles) == 0; refused != later {
					t.Errorf("a token of later: refused %t, want %t", refused, later)
				}
				heal()
				time.Sleep(longestRetry)
			})
		})
	}
}

// Revocations that come by config/ hold, too, while the disk fails; the rest of
// the new configuration waits for the disk.
func TestFailingDiskUnderConfiguration(t *testing.T) {
	t.Parallel()
	for name, slip := range map[string]string{"in order": "", "faulty": revocation("typo", "role: devv")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := directory(t, minimal)
			var mu sync.Mutex
			var health Health
			var told []Import
			s := open(t, dir, Options{
				OnWrite:  func(h Health) { mu.Lock(); defer mu.Unlock(); health = h },
				OnImport: func(i Import) { told = append(told, i) },
			})
			heal := breakDisk(t, s, errFull, nil, false)
			many := ""
			want := []string{"user u0"}
			for i := range 300 { // more than one write
				many += revocation(fmt.Sprint("r", i), fmt.Sprint("user: u", i))
				want = append(want, fmt.Sprint("user u", i+1))
			}
			want[300] = "device " + string(laptop)
			put(t, dir, "revoked.yaml", many+device(string(laptop), "revoked: true")+slip)
			put(t, dir, "more.yaml", roleDev)
			for range 2 { // asked again, it is still not on the disk
				if err := s.Reload(t.Context()); err == nil || errors.As(err, new(*ConfigError)) || !strings.Contains(err.Error(), ErrNotDurable.Error()) {
					t.Errorf("%v", err)
				}
				if diff := cmp.Diff(want, targets(s)); diff != "" {
					t.Fatal(diff)
				}
			}
			if d, _ := s.Snapshot().Device(laptop); !d.Spec.Revoked || s.Snapshot().Roles["dev"] != nil {
				t.Errorf("device %+v, roles %v", d, s.Snapshot().Roles)
			}
			heal()
			eventually(t, 5*time.Second, "it is written", func() bool { mu.Lock(); defer mu.Unlock(); return health == Health{} })
			if err := s.Reload(t.Context()); (err == nil) != (slip == "") {
				t.Error(err)
			}
			if len(told) != len(want) || told[300].Durable || told[300].Revocation.Spec.Device != string(laptop) || filepath.Base(told[300].File) != "revoked.yaml" {
				t.Errorf("told of %d: %+v", len(told), told[len(told)-1])
			}
			for _, name := range []string{"revoked.yaml", "more.yaml"} {
				put(t, dir, name, "")
			}
			s = reopen(t, s, Options{})
			if diff := cmp.Diff(want, targets(s)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
