package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/gateway/policy"
	"github.com/kube-zt/zt/pkg/wire"
)

// run starts Run and ends it with the test.
func run(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestV200 writes a fault into a running configuration: the old one stays, whole,
// the hook and the log say so once; the same file stops a start.
func TestV200FaultyConfigurationKeepsTheOld(t *testing.T) {
	t.Parallel()
	faults := map[string]struct{ text, want string }{
		"syntax":          {minimal + "---\nkind: [", "all.yaml:"},
		"misspelt field":  {strings.ReplaceAll(minimal, "inCluster", "inClustre"), `all.yaml:4: spec.inClustre: unknown field (did you mean "inCluster"?)`},
		"a name to lead":  {minimal + "---\n" + header + "kind: AccessPolicy\nmetadata: {name: p}\nspec: {roles: [deev], clusters: [prod], rules: [{verbs: [get], apiGroups: [\"\"], resources: [pods]}]}\n" + roleDev, `spec.roles[0]: there is no AccessRole "deev" (did you mean "dev"?)`},
		"twice the same":  {minimal + "---\n" + minimal, `stands already in`},
		"revoked nothing": {minimal + roleDev + revocation("x", "role: devv"), `spec.role: there is no AccessRole "devv" (did you mean "dev"?)`},
	}
	for name, tt := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, lines := logged()
			var mu sync.Mutex
			var outcomes []error
			dir := directory(t, minimal)
			s := open(t, dir, Options{Logger: log, OnReload: func(_ string, err error) { mu.Lock(); defer mu.Unlock(); outcomes = append(outcomes, err) }})
			count := func() int { mu.Lock(); defer mu.Unlock(); return len(outcomes) }
			run(t, s)
			old := s.Snapshot()

			put(t, dir, "all.yaml", tt.text)
			eventually(t, 5*time.Second, "the fault is reported", func() bool { return count() == 2 })
			if s.Snapshot() != old {
				t.Error("the snapshot was swapped")
			}
			var faulty *ConfigError
			if mu.Lock(); !errors.As(outcomes[1], &faulty) || !strings.Contains(faulty.Error(), tt.want) {
				t.Errorf("%v, want %q", outcomes[1], tt.want)
			}
			mu.Unlock()
			if !strings.Contains(lines(), "configuration refused; the old one stays in force") {
				t.Error(lines())
			}
			if err := s.Reload(t.Context()); err == nil || count() != 2 {
				t.Errorf("asked again: %v, %d reports", err, count())
			}

			put(t, dir, "all.yaml", minimal)
			eventually(t, 5*time.Second, "order is reported", func() bool { return count() == 3 })
			if s.Snapshot() != old || outcomes[2] != nil {
				t.Errorf("the same content again: %v", outcomes[2])
			}

			put(t, dir, "all.yaml", tt.text)
			fresh := t.TempDir()
			if err := os.CopyFS(filepath.Join(fresh, "config"), os.DirFS(filepath.Join(dir, "config"))); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(fresh, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("at the start: %v", err)
			}
		})
	}
}

// half is one side of a configuration in two files that belong together.
func half(kind, version string) string {
	if kind == "cluster" {
		return header + "kind: TargetCluster\nmetadata: {name: prod, labels: {version: " + version + "}}\nspec: {inCluster: true}\n" + roleDev
	}
	return header + "kind: AccessPolicy\nmetadata: {name: p-" + version + "}\n" +
		"spec:\n  roles: [dev]\n  clusterSelector: {matchLabels: {version: " + version + "}}\n" +
		"  rules: [{verbs: [get], apiGroups: [\"\"], resources: [" + version + "]}]\n"
}

// consistent reports a snapshot that is made of two versions.
func consistent(s *Snapshot) error {
	version := s.Clusters["prod"].Labels["version"]
	if len(s.Policies) != 1 || s.Policies["p-"+version] == nil {
		return fmt.Errorf("cluster of version %s with %d policies", version, len(s.Policies))
	}
	d := s.Policy.Decide(policy.Input{
		Now: time.Now(), Roles: []wire.Role{"dev"}, Cluster: "prod", Verb: "get", Resource: version, ResourceRequest: true,
	})
	if !d.Allowed || d.Policy != "p-"+version || d.Version != s.Version {
		return fmt.Errorf("version %s of %s: %+v", version, s.Version, d)
	}
	return nil
}

// TestV201 swaps a mounted ConfigMap the way the kubelet does, and worse, while
// it is read: what is loaded is one side or the other.
func TestV201NeverHalfApplied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	old := time.Now().Add(-time.Hour)
	for _, version := range []string{"a", "b"} {
		data := filepath.Join(config, "..version-"+version)
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"cluster", "policy"} {
			path := filepath.Join(data, kind+".yaml")
			if err := errors.Join(os.WriteFile(path, []byte(half(kind, version)), 0o644), os.Chtimes(path, old, old)); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap := func(version string) {
		t.Helper()
		tmp := filepath.Join(config, "..data_tmp")
		if err := errors.Join(os.Symlink("..version-"+version, tmp), os.Rename(tmp, filepath.Join(config, "..data"))); err != nil {
			t.Error(err)
		}
	}
	swap("a")
	for _, kind := range []string{"cluster.yaml", "policy.yaml"} {
		if err := os.Symlink(filepath.Join("..data", kind), filepath.Join(config, kind)); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, Options{})
	run(t, s)

	// Reading by itself, as fast as it goes, while links are swapped as fast.
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				swap(string(rune('a' + i%2)))
				if i%50 == 0 {
					time.Sleep(time.Millisecond) // let a reading through now and then
				}
			}
		}
	})
	read := 0
	for end := time.Now().Add(time.Duration(rounds(20_000)) * time.Millisecond); time.Now().Before(end); {
		got, err := readOnce(config)
		if errors.Is(err, files.ErrUnstable) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		read++
		sides := map[string]bool{}
		for _, f := range got.files {
			for _, side := range []string{"a", "b"} {
				if string(f.data) == half(strings.TrimSuffix(f.name, ".yaml"), side) {
					sides[side] = true
				}
			}
		}
		if len(sides) != 1 {
			t.Fatalf("read %v", sides)
		}
		if err := consistent(s.Snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	swapping.Wait()
	t.Logf("%d stable readings", read)

	// And through the watch: it arrives within a second, whole.
	for _, version := range []string{"b", "a", "b"} {
		swap(version)
		eventually(t, 3*time.Second, "version "+version+" is in force", func() bool {
			if err := consistent(s.Snapshot()); err != nil {
				t.Fatal(err)
			}
			return s.Snapshot().Clusters["prod"].Labels["version"] == version
		})
	}
}

// A thousand reloads under readers: every decision is of one whole version.
func TestReloadUnderReaders(t *testing.T) {
	t.Parallel()
	dir := directory(t, half("cluster", "v0"))
	put(t, dir, "policy.yaml", half("policy", "v0"))
	s := open(t, dir, Options{})
	var decided atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := consistent(s.Snapshot()); err != nil {
					t.Error(err)
					return
				}
				decided.Add(1)
			}
		})
	}
	n := rounds(1000)
	for i := 1; i <= n; i++ {
		version := fmt.Sprint("v", i)
		// Between the two files the configuration is faulty or mixed to look at,
		// and the policy then covers nothing: never in force, as one reload
		// reads both.
		put(t, dir, "all.yaml", half("cluster", version))
		put(t, dir, "policy.yaml", half("policy", version))
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.Snapshot().Clusters["prod"].Labels["version"]; got != version {
			t.Fatalf("%s is in force, want %s", got, version)
		}
	}
	close(stop)
	readers.Wait()
	t.Logf("%d reloads under %d decisions", n, decided.Load())
}

func TestWatch(t *testing.T) {
	t.Parallel()
	for name, notices := range map[string]func() (*fsnotify.Watcher, error){
		"with notices":    fsnotify.NewWatcher,
		"without notices": func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := directory(t, minimal)
			s := open(t, dir, Options{})
			s.notices = notices
			run(t, s)
			signal := s.Subscribe(t.Context())
			sub := filepath.Join(dir, "config", "more")
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				put(t, dir, filepath.Join("more", "c.yaml"), strings.ReplaceAll(minimal, "prod", fmt.Sprint("more-", i)))
				select {
				case <-signal:
				case <-time.After(5 * time.Second):
					t.Fatal("no signal")
				}
				if s.Snapshot().Clusters[wire.ClusterName(fmt.Sprint("more-", i))] == nil || len(s.Snapshot().Clusters) != 2 {
					t.Errorf("%d: %v", i, s.Snapshot().Clusters)
				}
			}
		})
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml": "a", "b.yml": "b", "c.json": "c", "sub/d.yaml": "d", ".hidden.yaml": "no", ".git/e.yaml": "no", "README.md": "no", "a.yaml.bak": "no", "a.yaml~": "no",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readTree(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range got.files {
		names = append(names, f.name)
	}
	if diff := cmp.Diff([]string{"a.yaml", "b.yml", "c.json", "sub/d.yaml"}, names); diff != "" {
		t.Error(diff)
	}
	if len(got.ignored) != 3 {
		t.Errorf("ignored: %v", got.ignored)
	}
	again, err := readTree(t.Context(), root)
	if err != nil || again.version() != got.version() {
		t.Error("the version of the same content differs", err)
	}

	if err := os.Symlink("..", filepath.Join(root, "sub", "loop")); err != nil {
		t.Fatal(err)
	}
	if _, err := readTree(t.Context(), root); err == nil || !strings.Contains(err.Error(), "a link leads back") {
		t.Errorf("a loop: %v", err)
	}
	if _, err := readTree(t.Context(), filepath.Join(root, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A link that leads nowhere does not change: it is named.
func TestTreeWithADeadLink(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	link := filepath.Join(root, "link.yaml")
	if err := os.Symlink(filepath.Join(root, "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := readTree(t.Context(), root)
		if !errors.Is(err, files.ErrUnstable) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), link+": no such file") {
			t.Error(err)
		}
	})
}

// What is being written is waited for; what never rests is given up.
func TestUnstableTree(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	path := filepath.Join(root, "a.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
	// On the bubble's clock every file is of the future, so it counts as new.
	synctest.Test(t, func(t *testing.T) {
		write("half")
		go func() {
			for i := range 10 { // every pause is shorter than what must be still
				time.Sleep(files.Settle * 4 / 5)
				write(fmt.Sprint("half ", i))
			}
			write("whole")
		}()
		got, err := readTree(t.Context(), root)
		if err != nil || string(got.files[0].data) != "whole" {
			t.Errorf("%v: %v", got, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		writing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				write(fmt.Sprint(i))
				time.Sleep(files.Settle / 2)
			}
		})
		defer writing.Wait()
		if _, err := readTree(ctx, root); !errors.Is(err, files.ErrUnstable) {
			t.Error(err)
		}
		cancel()
		if _, err := readTree(ctx, root); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// What takes away holds at once, though a slip elsewhere keeps the rest of the
// configuration out.
func TestRevocationsOfAFaultyConfigurationHold(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	dir := directory(t, minimal+roleDev)
	s := open(t, dir, Options{Logger: log})
	if _, err := s.ObserveDevice(t.Context(), laptop, seen("alice")); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	version := s.Snapshot().Version

	put(t, dir, "slip.yaml", revocation("unread", "user: unread")+"---\nkind: [")
	put(t, dir, "policy.yaml", header+"kind: AccessPolicy\nmetadata: {name: p}\nspec: {roles: [nobody], clusters: [prod]}\n"+revocation("beside", "user: bob"))
	put(t, dir, "revoked.yaml", revocation("thief", "user: mallory")+device(string(laptop), "revoked: true")+
		revocation("role", "role: dev")+revocation("typo", "role: devv")+revocation("two", "user: a, group: b"))
	put(t, dir, "grant.yaml", device("bbbbbbbbbbbbbbbbbbbb", "approved: true"))
	want := []string{"user bob", "user mallory", "role dev", "device " + string(laptop)}
	eventually(t, 5*time.Second, "revocations hold", func() bool { return len(targets(s)) >= len(want) })
	if diff := cmp.Diff(want, targets(s)); diff != "" {
		t.Error(diff)
	}
	next := s.Snapshot()
	if d, _ := next.Device(laptop); !d.Spec.Revoked {
		t.Errorf("%+v", d)
	}
	if _, ok := next.Device("bbbbbbbbbbbbbbbbbbbb"); ok || next.Version != version || len(next.Policies) != 0 {
		t.Errorf("more than revocations was taken: %+v", next)
	}
	eventually(t, 5*time.Second, "the log says so", func() bool { return strings.Contains(lines(), "the revocations in it hold all the same") })
	size := func() int64 { s.mu.Lock(); defer s.mu.Unlock(); return int64(s.st.Sequence) }
	before := size()
	if err := s.Reload(t.Context()); err == nil || size() != before {
		t.Errorf("read again: %v, written %d times", err, size()-before)
	}
	// They stay when the files are gone.
	for _, name := range []string{"slip.yaml", "policy.yaml", "revoked.yaml", "grant.yaml"} {
		put(t, dir, name, "")
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, targets(s)); diff != "" {
		t.Error(diff)
	}
}

// Run tries again, without a change of the files, what is no fault of the files
// alone: a revocation that could not be written.
func TestRevocationsOfAFaultyConfigurationAreNotForgotten(t *testing.T) {
	t.Parallel()
	dir := directory(t, minimal)
	s := open(t, dir, Options{})
	put(t, dir, "revoked.yaml", revocation("thief", "user: mallory")+revocation("typo", "role: devv"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := s.Reload(t.Context())
	if err == nil || errors.As(err, new(*ConfigError)) || !errors.Is(err, ErrClosed) {
		t.Errorf("a store that cannot write: %v", err)
	}
}
