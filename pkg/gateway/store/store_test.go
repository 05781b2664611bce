package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirectory); dir != "" {
		writeUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// rounds is a full count with ZT_SOAK and a twentieth of it without.
func rounds(full int) int {
	if os.Getenv("ZT_SOAK") != "" {
		return full
	}
	return full / 20
}

const (
	header   = "apiVersion: kube-zt.io/v1alpha1\n"
	minimal  = header + "kind: TargetCluster\nmetadata: {name: prod}\nspec: {inCluster: true}\n"
	roleDev  = "---\n" + header + "kind: AccessRole\nmetadata: {name: dev}\nspec: {groups: [dev]}\n"
	laptop   = wire.DeviceID("aaaaaaaaaaaaaaaaaaaa")
	laptopJT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
)

// directory makes DIR/config with one file and the given text.
func directory(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "all.yaml", text)
	return dir
}

// put replaces a file of the configuration, as an editor does that renames. It
// seems old, so that nobody waits for it to settle.
func put(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, "config", name)
	if text == "" {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path+".tmp", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.Chtimes(path+".tmp", old, old), os.Rename(path+".tmp", path)); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func reopen(t testing.TB, s *Store, o Options) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, filepath.Dir(s.state), o)
}

// eventually polls; nothing here sleeps for a guess.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func device(name, extra string) string {
	return "---\n" + header + "kind: Device\nmetadata: {name: " + name + "}\nspec: {" + extra + "}\n"
}

func revocation(name, spec string) string {
	return "---\n" + header + "kind: Revocation\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
}

func targets(s *Store) (all []string) {
	for _, r := range s.Snapshot().Revocations {
		kind, value, _ := r.Spec.Target()
		all = append(all, kind+" "+value)
	}
	return all
}

func TestOnlyOneProcess(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	s := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d); one directory serves one gateway", os.Getpid())) {
		t.Errorf("second: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := Open(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "zt-gateway init") {
		t.Error(err)
	}
	s := open(t, directory(t, "# nothing yet\n"), Options{})
	if n := len(s.Snapshot().Clusters); n != 0 || s.Snapshot().Policy == nil {
		t.Errorf("%d clusters", n)
	}
}

func TestStateIsPrivate(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "state"), 0o777); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
	err := filepath.WalkDir(filepath.Join(dir, "state"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUseOnce(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	var offset atomic.Int64
	o := Options{Now: func() time.Time { return clock.Add(time.Duration(offset.Load())) }}
	s := open(t, directory(t, minimal), o)
	ctx := t.Context()
	var won atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			switch err := s.UseOnce(ctx, "h", clock.Add(time.Hour)); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrUsed):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("used %d times", won.Load())
	}
	s = reopen(t, s, o)
	if err := s.UseOnce(ctx, "h", clock.Add(time.Hour)); !errors.Is(err, ErrUsed) {
		t.Errorf("after a restart: %v", err)
	}
	if err := s.UseOnce(ctx, "late", clock); err == nil {
		t.Error("what has ended was taken")
	}
	// The record outlives what it stands for, and then goes.
	offset.Store(int64(time.Hour + time.Minute))
	if err := s.UseOnce(ctx, "h", clock.Add(3*time.Hour)); !errors.Is(err, ErrUsed) {
		t.Errorf("just after the end: %v", err)
	}
	offset.Store(int64(time.Hour + keepUsed + time.Second))
	if err := s.compact(); err != nil {
		t.Fatal(err)
	}
	if n := len(s.st.Used); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	ctx := t.Context()
	now := time.Now().UTC().Truncate(time.Second)
	mine := SessionRecord{
		ID: "s1", User: wire.User{Issuer: "i", Subject: "s", Name: "alice"}, Groups: []string{"a"}, Device: laptop, Roles: []wire.Role{"dev"},
		Serial: "0a", Issued: now, End: now.Add(time.Hour), AuthTime: now, AMR: []string{"pwd"}, IDTokenIssuedAt: now, Nonce: "n", Proof: "p", Tier: "software",
	}
	older := SessionRecord{ID: "s2", Issued: now.Add(-time.Minute), End: now.Add(time.Hour)}
	ended := SessionRecord{ID: "s3", Issued: now, End: now.Add(time.Hour), Ended: now}
	over := SessionRecord{ID: "s4", Issued: now, End: now.Add(-time.Second)}
	for _, r := range []SessionRecord{mine, older, ended, over} {
		if err := s.PutSession(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s, Options{})
	var ids []string
	for _, r := range s.Sessions() {
		ids = append(ids, string(r.ID))
	}
	if diff := cmp.Diff([]string{"s2", "s1"}, ids); diff != "" {
		t.Error(diff)
	}
	got, ok := s.Session("s1")
	if got.Version == 0 {
		t.Error("no version")
	}
	got.Version = 0
	if diff := cmp.Diff(mine, got); diff != "" || !ok {
		t.Error(diff)
	}
	got.Groups[0] = "changed"
	if again, _ := s.Session("s1"); again.Groups[0] != "a" {
		t.Error("a reader changed the record")
	}
	if _, ok := s.Session("s3"); !ok {
		t.Error("an ended session cannot be looked at")
	}
	if err := s.PutSession(ctx, SessionRecord{}); err == nil {
		t.Error("a session without an id")
	}
}

func TestEpochNeverFalls(t *testing.T) {
	t.Parallel()
	var clock atomic.Pointer[time.Time]
	set := func(s string) {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		clock.Store(&at)
	}
	o := Options{Now: func() time.Time { return *clock.Load() }}
	set("2026-08-01T00:00:00Z")
	dir := directory(t, minimal)
	s := open(t, dir, o)
	seen := s.Snapshot().Epoch
	rises := func(what string) {
		t.Helper()
		if now := s.Snapshot().Epoch; !seen.Less(now) {
			t.Errorf("%s: %s after %s", what, now, seen)
		} else {
			seen = now
		}
	}
	if _, err := s.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "a"}, "test"); err != nil {
		t.Fatal(err)
	}
	rises("revoke")
	generation := seen.Generation
	s = reopen(t, s, o)
	rises("restart in the same second")
	if seen.Generation != generation+1 {
		t.Errorf("generation %d after %d", seen.Generation, generation)
	}
	set("2025-01-01T00:00:00Z")
	s = reopen(t, s, o)
	rises("clock set back")

	// Somebody keeps a copy, goes on, and puts the copy back.
	set("2026-08-02T00:00:00Z")
	copied := t.TempDir()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(copied, "state"), os.DirFS(filepath.Join(dir, "state"))); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, o)
	for i := range 10 {
		if _, err := s.Revoke(t.Context(), v1alpha1.RevocationSpec{User: fmt.Sprint(i)}, "test"); err != nil {
			t.Fatal(err)
		}
	}
	rises("more")
	set("2026-08-03T00:00:00Z")
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(dir, "state")), os.Rename(filepath.Join(copied, "state"), filepath.Join(dir, "state"))); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, o)
	rises("restored copy")
}

func TestClosedStoreTakesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.PutSession(t.Context(), SessionRecord{ID: "a"}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := s.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "a"}, "x"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	signal := s.Subscribe(ctx)
	for range 3 {
		if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: fmt.Sprint(time.Now().UnixNano())}, "x"); err != nil {
			t.Fatal(err)
		}
	}
	<-signal
	select {
	case <-signal:
		t.Error("signals pile up")
	default:
	}
	if err := s.UseOnce(ctx, "h", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-signal:
		t.Error("a signal without a new snapshot")
	default:
	}
	cancel()
	eventually(t, time.Second, "the subscription ends", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.watch) == 0 })
}

// logged collects log lines.
func logged() (*slog.Logger, func() string) {
	var mu sync.Mutex
	var b bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return b.Write(p) })
	return slog.New(slog.NewTextHandler(w, nil)), func() string { mu.Lock(); defer mu.Unlock(); return b.String() }
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
