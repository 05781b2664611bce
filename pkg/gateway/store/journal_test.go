package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// written is a journal with some of everything, and how long it was after each
// confirmed call.
func written(t *testing.T) (dir string, ends []int64) {
	t.Helper()
	dir = directory(t, minimal)
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	ends = append(ends, s.journal.size)
	for i := range 6 {
		id := wire.DeviceID(strings.Repeat(string(rune('a'+i)), 20))
		_, e1 := s.ObserveDevice(ctx, id, v1alpha1.DeviceStatus{Thumbprint: fmt.Sprint(i), OwnerSubject: "s", Owner: "o", Tier: "software"})
		ends = append(ends, s.journal.size)
		_, e2 := s.Revoke(ctx, v1alpha1.RevocationSpec{User: fmt.Sprint("u", i)}, "test")
		ends = append(ends, s.journal.size)
		e3 := s.UseOnce(ctx, fmt.Sprint("h", i), time.Now().Add(time.Hour))
		ends = append(ends, s.journal.size)
		e4 := s.PutSession(ctx, SessionRecord{ID: wire.SessionID(fmt.Sprint(i)), End: time.Now().Add(time.Hour)})
		ends = append(ends, s.journal.size)
		if err := errors.Join(e1, e2, e3, e4); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, ends
}

// A crash may cut the journal anywhere: whatever was confirmed before that byte
// is there, and what comes after is as if it had never been.
func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	dir, ends := written(t)
	data, err := os.ReadFile(filepath.Join(dir, "state", journalName))
	if err != nil {
		t.Fatal(err)
	}
	for length := range len(data) + 1 {
		records, whole, err := parseJournal(data[:length])
		if err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
		confirmed := 0
		for confirmed < len(ends) && ends[confirmed] <= int64(length) {
			confirmed++
		}
		st := newState()
		if err := st.replay(records); err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
		if len(records) != confirmed || st.Sequence != uint64(confirmed) || whole > length {
			t.Fatalf("%d bytes: %d records, sequence %d, want %d", length, len(records), st.Sequence, confirmed)
		}
	}
	// And through the front door, at some lengths: it opens, goes on, and opens
	// again.
	for length := 0; length <= len(data); length += 1 + len(data)/16 {
		torn := directory(t, minimal)
		state := filepath.Join(torn, "state")
		if err := errors.Join(os.Mkdir(state, 0o700), os.WriteFile(filepath.Join(state, journalName), data[:length], 0o600)); err != nil {
			t.Fatal(err)
		}
		log, lines := logged()
		s := open(t, torn, Options{Logger: log})
		if _, whole, _ := parseJournal(data[:length]); (whole != length) != strings.Contains(lines(), "half written") {
			t.Errorf("%d bytes: the log says %q", length, lines())
		}
		if _, err := s.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "after"}, "test"); err != nil {
			t.Fatal(err)
		}
		before := targets(s)
		s = reopen(t, s, Options{})
		if diff := cmp.Diff(before, targets(s)); diff != "" {
			t.Errorf("%d bytes: %s", length, diff)
		}
	}
}

// A byte that changed on the disk is found: it costs the last record at most,
// which may be a torn one, and else stops the start.
func TestEveryFlippedByteIsNoticed(t *testing.T) {
	t.Parallel()
	dir, ends := written(t)
	data, err := os.ReadFile(filepath.Join(dir, "state", journalName))
	if err != nil {
		t.Fatal(err)
	}
	last := ends[len(ends)-2]
	for i := range data {
		data[i] ^= 0x40
		records, _, err := parseJournal(data)
		switch {
		case int64(i) < last && !errors.Is(err, errDamaged):
			t.Fatalf("byte %d: %d records, %v", i, len(records), err)
		case int64(i) >= last && (err != nil || len(records) != len(ends)-1):
			t.Fatalf("byte %d of the last record: %d records, %v", i, len(records), err)
		}
		data[i] ^= 0x40
	}
	// A tail of zeros is what some file systems leave of a record.
	if records, whole, err := parseJournal(append(slices.Clone(data), make([]byte, 5000)...)); err != nil || len(records) != len(ends) || whole != len(data) {
		t.Errorf("zeros: %d records, %v", len(records), err)
	}
}

func TestDamageStopsTheStart(t *testing.T) {
	t.Parallel()
	dir, ends := written(t)
	path := filepath.Join(dir, "state", journalName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what, want string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	flipped := slices.Clone(data)
	flipped[ends[3]+20] ^= 1
	try("a flipped bit", "cannot be read, and there is a whole one behind it", flipped)
	try("a record taken out", "follows on", slices.Concat(data[:ends[2]], data[ends[3]:]))
	try("a newer version", "newer version", append([]byte("zt-journal 2\n"), data[len(journalMagic):]...))
	try("an operation of a newer version", "newer version", append([]byte(journalMagic), record{sequence: 1, payload: []byte(`[{"lift":{}}]`)}.encode()...))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(journalMagic))
	f.Add(append([]byte(journalMagic), record{sequence: 1, payload: []byte(`[{"open":{"generation":1}}]`)}.encode()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, whole, err := parseJournal(data)
		if err != nil {
			return
		}
		if whole > len(data) {
			t.Fatalf("%d of %d bytes", whole, len(data))
		}
		_ = newState().replay(records) // must not panic
	})
}

const childDirectory = "ZT_TEST_STORE_CHILD"

// writeUntilKilled is the child: it says each thing that was confirmed.
func writeUntilKilled(dir string) {
	s, err := Open(dir, Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	say("epoch %s", s.Snapshot().Epoch)
	ctx := context.Background()
	for worker := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), worker, i)
				switch i % 3 {
				case 0:
					if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: name}, "child"); err == nil {
						say("user %s", name)
					}
				case 1:
					if err := s.UseOnce(ctx, name, time.Now().Add(time.Hour)); err == nil {
						say("used %s", name)
					}
				case 2:
					if err := s.PutSession(ctx, SessionRecord{ID: wire.SessionID(name), End: time.Now().Add(time.Hour)}); err == nil {
						say("session %s", name)
					}
				}
			}
		}()
	}
	select {}
}

// Killed in the middle of writing, again and again: nothing that was confirmed
// is lost, and while one process lives no other gets in.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := directory(t, minimal)
	var confirmed []string
	var epoch wire.Epoch
	for round := range rounds(200) {
		child := exec.Command(exe, "-test.run=^$")
		child.Env = append(os.Environ(), childDirectory+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 3 {
				if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", child.Process.Pid)) {
					t.Errorf("beside the child: %v", err)
				}
			}
			if n == 20+round*7 {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			confirmed = append(confirmed, lines.Text())
		}
		_ = child.Wait() // killed
	}
	s := open(t, dir, Options{})
	users := map[string]bool{}
	for _, r := range s.Snapshot().Revocations {
		users[r.Spec.User] = true
	}
	for _, line := range confirmed {
		kind, name, _ := strings.Cut(line, " ")
		ok := false
		switch kind {
		case "user":
			ok = users[name]
		case "used":
			ok = errors.Is(s.UseOnce(t.Context(), name, time.Now().Add(time.Hour)), ErrUsed)
		case "session":
			_, ok = s.Session(wire.SessionID(name))
		case "epoch":
			var e wire.Epoch
			ok = e.UnmarshalText([]byte(name)) == nil && epoch.Less(e)
			epoch = e
		}
		if !ok {
			t.Errorf("lost: %s", line)
		}
	}
	if len(confirmed) < 200 {
		t.Errorf("only %d were confirmed", len(confirmed))
	}
	t.Logf("%d confirmed over %d kills", len(confirmed), rounds(200))
}

// The crash between writing the snapshot and emptying the journal.
func TestSnapshotAndJournalOverlap(t *testing.T) {
	t.Parallel()
	dir, ends := written(t)
	state := filepath.Join(dir, "state")
	journal, err := os.ReadFile(filepath.Join(state, journalName))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, Options{})
	want := targets(s)
	if err := errors.Join(s.compact(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, journalName), journal, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if diff := cmp.Diff(want, targets(s)); diff != "" {
		t.Error(diff)
	}
	if s.st.Sequence <= uint64(len(ends)) {
		t.Errorf("sequence %d", s.st.Sequence)
	}
	// A snapshot whose content changed stops the start.
	if err := errors.Join(s.compact(), s.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(state, snapshotName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-10] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, errDamaged) {
		t.Error(err)
	}
}

// The journal does not grow without end, and a snapshot loses nothing.
func TestCompaction(t *testing.T) {
	t.Parallel()
	s := open(t, directory(t, minimal), Options{})
	ctx := t.Context()
	large := SessionRecord{ID: "s", End: time.Now().Add(time.Hour), Groups: []string{strings.Repeat("g", 200<<10)}}
	if _, err := s.Revoke(ctx, v1alpha1.RevocationSpec{User: "first"}, "test"); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if err := s.PutSession(ctx, large); err != nil {
			t.Fatal(err)
		}
	}
	if s.journal.size > 2*compactAbove {
		t.Errorf("the journal has %d bytes", s.journal.size)
	}
	if err := s.PutSession(ctx, SessionRecord{ID: "x", Groups: []string{strings.Repeat("g", 2<<20)}}); err == nil {
		t.Error("a write beyond all bounds was taken")
	}
	s = reopen(t, s, Options{})
	if diff := cmp.Diff([]string{"user first"}, targets(s)); diff != "" {
		t.Error(diff)
	}
	if _, ok := s.Session("s"); !ok {
		t.Error("the session is lost")
	}
}

func BenchmarkUseOnce(b *testing.B) {
	s := open(b, directory(b, minimal), Options{})
	for i := 0; b.Loop(); i++ {
		if err := s.UseOnce(b.Context(), fmt.Sprint(i), time.Now().Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
	}
}
