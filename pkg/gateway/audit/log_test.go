package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/wire"
)

// fill sets v to something, or to nothing in one of three cases.
func fill(random *rand.Rand, v reflect.Value) {
	texts := []string{"plain", `with "quotes" and \`, "line\nbreak\r\x1b[31m", "ünïcödé \u2028 \u2029 ☃", "<html>&amp;", "bad \xff\xfe utf8", " ", "\x7f"}
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(random.Int64N(1e10), random.Int64N(1e9)).UTC()))
	case random.IntN(3) == 0:
	case v.Kind() == reflect.String:
		v.SetString(texts[random.IntN(len(texts))])
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.Int, v.Kind() == reflect.Int64:
		v.SetInt(random.Int64N(1e12) - 100)
	case v.Kind() == reflect.Float64:
		v.SetFloat(float64(random.Int64N(1e12)) / 1000)
	case v.Kind() == reflect.Slice:
		for range random.IntN(3) {
			one := reflect.New(v.Type().Elem()).Elem()
			fill(random, one)
			v.Set(reflect.Append(v, one))
		}
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range random.IntN(3) {
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint(texts[i], i)), reflect.ValueOf(texts[random.IntN(len(texts))]))
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(random, v.Elem())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(random, v.Field(i))
		}
	default:
		panic(v.Kind().String())
	}
}

// TestAppendJSON holds the encoder against encoding/json, field by field, also
// those that are added one day.
func TestAppendJSON(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var r Record
		v := reflect.ValueOf(&r).Elem()
		for i := range v.NumField() {
			fill(random, v.Field(i))
		}
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(r); err != nil {
			t.Fatal(err)
		}
		got := append(r.appendJSON(nil), '\n')
		if diff := cmp.Diff(want.String(), string(got)); diff != "" {
			t.Fatal(diff)
		}
	}
}

func openLog(t *testing.T) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log, path
}

func lines(t *testing.T, path string) []Record {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var records []Record
	for line := range bytes.Lines(data) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		records = append(records, r)
	}
	return records
}

func TestLog(t *testing.T) {
	t.Parallel()
	log, path := openLog(t)
	hostile := "a\nb\x1b]52;c;\x07\"}{\"kind\":\"outcome\""
	if err := log.Intent(Record{ID: "one", Path: hostile, UserAgent: hostile, Duration: 1500 * time.Microsecond}); err != nil {
		t.Fatal(err)
	}
	log.Outcome(Record{ID: "one", Decision: Allowed, Code: 200})
	if err := log.Event(Record{Event: EventSession, User: &wire.User{Name: "alice"}}); err != nil {
		t.Fatal(err)
	}
	got := lines(t, path)
	if len(got) != 3 || got[0].Kind != KindIntent || got[1].Kind != KindOutcome || got[2].Kind != KindEvent || got[0].Path != hostile || got[0].DurationMS != 1.5 {
		t.Errorf("%+v", got)
	}
	if got[0].Time.IsZero() || got[0].Time.Location() != time.UTC {
		t.Errorf("time %v", got[0].Time)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A log that was open to others is closed to them, at the start and at a rotation.
func TestTightened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	loose := func() {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	closed := func(when string) {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", when, info.Mode(), err)
		}
	}
	loose()
	log, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	closed("at the start")
	loose()
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	closed("at a rotation")
}

func TestTooLong(t *testing.T) {
	t.Parallel()
	log, path := openLog(t)
	if err := log.Intent(Record{Message: strings.Repeat("x", maxLine)}); err == nil {
		t.Error("a record over the limit was written")
	}
	if got := lines(t, path); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestTorn: what a full disk cut short is taken back, and the log heals.
func TestTorn(t *testing.T) {
	// The limit on file sizes is the process's: no parallel tests beside it.
	log, path := openLog(t)
	if err := log.Intent(Record{ID: "first"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limited := before
	limited.Cur = uint64(info.Size()) + 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Fatal(err)
	}
	err = log.Intent(Record{ID: "second"})
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Fatal("a line that does not fit was written")
	}
	if err := log.Intent(Record{ID: "third"}); err != nil {
		t.Fatal(err)
	}
	got := lines(t, path)
	if len(got) != 2 || got[1].ID != "third" {
		t.Errorf("%+v", got)
	}
}

// TestRotation: a file that is renamed away loses nothing and tears nothing.
func TestRotation(t *testing.T) {
	t.Parallel()
	log, path := openLog(t)
	var wg sync.WaitGroup
	const writers, each = 8, 200
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if err := log.Intent(Record{ID: wire.DecisionID(fmt.Sprintf("%d-%d", i, j))}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 5 {
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
		if err := log.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	seen := map[wire.DecisionID]int{}
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, r := range lines(t, file) {
			seen[r.ID]++
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d records, want %d", len(seen), writers*each)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "no", "such", "place"), Options{}); err == nil {
		t.Error("opened in a directory that does not exist")
	}
	target := filepath.Join(dir, "target")
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "link"), Options{}); err == nil {
		t.Error("followed a symbolic link")
	}
	var failed []error
	log, err := Open("/dev/full", Options{Failed: func(err error) { failed = append(failed, err) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Intent(Record{ID: "x"}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	log.Outcome(Record{ID: "x"})
	if len(failed) != 2 {
		t.Errorf("told of %d failures", len(failed))
	}
	if err := log.Close(); err == nil {
		t.Log("closing /dev/full succeeded")
	}
	if err := log.Intent(Record{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"short": "short", "exactly10!": "exactly10!", "more than ten": "more than …", "äöüäöüäöü": "äöüäö…"} {
		if got := Clip(in, 10); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func BenchmarkOutcome(b *testing.B) {
	log, err := Open(filepath.Join(b.TempDir(), "audit.log"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	r := Record{ID: "abcdefghijklmnop", User: &wire.User{Issuer: "https://idp.example.com", Subject: "1234", Name: "alice@example.com"}, Device: "device", Tier: "software", Session: "session", Roles: []wire.Role{"dev"}, Source: "192.0.2.1", Regime: "tunnel", UserAgent: "kubectl/v1.36.3 (linux/amd64) kubernetes/abcdef", Cluster: "prod", Method: "GET", Path: "/api/v1/namespaces/dev/pods/x", Verb: "get", Resource: "pods", Namespace: "dev", Name: "x", Decision: Allowed, Policy: "everything", Rule: 1, Version: "abc", Code: 200, BytesOut: 1000, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		log.Outcome(r)
	}
}
