package kubeconfig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kube-zt/zt/pkg/client/fault"
)

func entry(cluster string) Entry {
	return Entry{
		Context: cluster, Host: cluster + ".zt.test", CA: "-----BEGIN CERTIFICATE-----\n", ProxyURL: "http://zt.test:secret@127.0.0.1:40001",
		Command: "/usr/local/bin/kubectl-zt", Profile: "zt.test", Cluster: cluster,
	}
}

func TestOwnFileIsWhatClientGoReads(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "zt")
	res, err := Update(t.Context(), path, []Entry{entry("prod"), entry("dev")}, Options{Current: "prod.zt.test"})
	if err != nil || !res.Changed || res.Current != "prod" {
		t.Fatalf("%+v %v", res, err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", fi.Mode(), err)
	}
	cfg := load(t, path)
	if cfg.CurrentContext != "prod" || len(cfg.Contexts) != 2 {
		t.Errorf("%+v", cfg)
	}
	c := cfg.Clusters["prod.zt.test"]
	if c.Server != "https://prod.zt.test" || c.ProxyURL != entry("prod").ProxyURL || string(c.CertificateAuthorityData) != entry("prod").CA {
		t.Errorf("%+v", c)
	}
	want := &clientcmdapi.ExecConfig{
		APIVersion: "client.authentication.k8s.io/v1", Command: "/usr/local/bin/kubectl-zt",
		Args:        []string{"credential", "--profile", "zt.test", "--cluster", "prod"},
		InstallHint: installHint, InteractiveMode: clientcmdapi.IfAvailableExecInteractiveMode, ProvideClusterInfo: true,
	}
	got := cfg.AuthInfos["prod.zt.test"].Exec
	if diff := cmp.Diff(want.String(), got.String()); diff != "" || got.InstallHint != want.InstallHint {
		t.Errorf("exec (-want +got):\n%s", diff)
	}
	// The same again changes nothing.
	if res, err := Update(t.Context(), path, []Entry{entry("prod"), entry("dev")}, Options{Current: "prod.zt.test"}); err != nil || res.Changed {
		t.Errorf("second time: %+v %v", res, err)
	}
}

func TestThePersonsEditsSurvive(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "zt")
	mustUpdate(t, path, Options{}, entry("prod"), entry("dev"))
	// What `kubectl config set-context` and k9s do to it.
	cfg := load(t, path)
	cfg.Contexts["prod"].Namespace = "team-a"
	cfg.Clusters["prod.zt.test"].DisableCompression = true
	cfg.CurrentContext = "dev"
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		t.Fatal(err)
	}
	moved := entry("prod")
	moved.ProxyURL = "http://zt.test:other@127.0.0.1:40002"
	if res := mustUpdate(t, path, Options{}, moved, entry("dev")); res.Backup != "" {
		t.Errorf("backup %s without --overwrite", res.Backup)
	}
	cfg = load(t, path)
	if cfg.Contexts["prod"].Namespace != "team-a" || !cfg.Clusters["prod.zt.test"].DisableCompression || cfg.CurrentContext != "dev" {
		t.Errorf("edits are lost: %+v", cfg.Contexts["prod"])
	}
	if cfg.Clusters["prod.zt.test"].ProxyURL != moved.ProxyURL {
		t.Error("the new port did not arrive")
	}

	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	res := mustUpdate(t, path, Options{Overwrite: true, Now: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)}, moved, entry("dev"))
	backup, err := os.ReadFile(res.Backup)
	if err != nil || string(backup) != string(before) || !strings.HasSuffix(res.Backup, ".bak-20261122-010203") {
		t.Errorf("backup %s: %v", res.Backup, err)
	}
	if cfg = load(t, path); cfg.Contexts["prod"].Namespace != "" || cfg.Clusters["prod.zt.test"].DisableCompression {
		t.Error("--overwrite kept the edits")
	}
}

const theirs = `# managed by hand, do not touch
apiVersion: v1
kind: Config
preferences: {}
current-context: home   # my own
clusters:
  # the one at home
  - name: home
    cluster:
      server:    https://10.0.0.1:6443
  -
    cluster: {server: https://10.0.0.2:6443}
    name: office
# contexts follow

contexts:
- context: {cluster: home, user: me}
  name: home
- context:
    cluster: office
    user: me
    namespace: "prod"
  name: prod
users:
- name: me
  user:
    token: |
      s\x65cret
      # looks like a comment
...
`

func TestMergeLeavesTheRestByteIdentical(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text string }{
		{"hand-written", theirs},
		{"no newline at the end", before(theirs, " |\n      s") + " s3cret"},
		{"empty lists", "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: null # none\nusers:\ncurrent-context: \"\"\n"},
		{"lists missing", "kind: Config\n"},
		{"comments only", "# nothing yet\n"},
		{"nothing", ""},
		{"carriage returns", strings.ReplaceAll(theirs, "\n", "\r\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			res := mustUpdate(t, path, Options{}, entry("prod"), entry("dev"))
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if tc.text != "" && !strings.HasPrefix(tc.name, "empty") && !subsequence(lines(tc.text), lines(string(after))) {
				t.Errorf("lines of the original are gone or moved:\n%s", after)
			}
			cfg := load(t, path)
			// A context "prod" of the person keeps its name; ours is called by its host.
			want := "prod"
			if strings.Contains(tc.text, "office") {
				want = "prod.zt.test"
				if cfg.Contexts["prod"].Cluster != "office" {
					t.Error("the person's own context was taken over")
				}
			}
			if res.Contexts["prod.zt.test"] != want || cfg.Contexts[want].Cluster != "prod.zt.test" {
				t.Errorf("context %q: %+v", res.Contexts["prod.zt.test"], cfg.Contexts)
			}
			if strings.Contains(tc.text, "home") && cfg.CurrentContext != "home" {
				t.Errorf("current context became %q", cfg.CurrentContext)
			}

			// And out again.
			if _, err := Remove(t.Context(), path, "zt.test"); err != nil {
				t.Fatal(err)
			}
			back, err := os.ReadFile(path)
			if strings.Contains(tc.text, "home") {
				if diff := cmp.Diff(strings.TrimRight(tc.text, "\r\n"), strings.TrimRight(string(back), "\r\n")); err != nil || diff != "" {
					t.Errorf("after removal (-want +got):\n%s", diff)
				}
			} else if !strings.Contains(tc.text, "#") && !os.IsNotExist(err) {
				t.Errorf("an empty file stays: %q", back)
			}
		})
	}
}

func TestWhatCannotBeEditedIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text, says string
		mode             os.FileMode
	}{
		{"JSON", `{"apiVersion":"v1","kind":"Config","clusters":[]}`, "JSON", 0o600},
		{"one-line list", "clusters: [{name: a, cluster: {server: x}}]\n", "in one line", 0o600},
		{"not YAML", "clusters:\n\t- x", "not YAML", 0o600},
		{"a list", "- a\n- b\n", "not a kubeconfig", 0o600},
		{"another version", "apiVersion: v2\nkind: Config\n", `"v2", not v1`, 0o600},
		{"another kind", "kind: Pod\n", "kind is", 0o600},
		{"two documents", "kind: Config\n---\nkind: Config\n", "more than one", 0o600},
		{"list is a map", "clusters: {a: b}\n", "not a list", 0o600},
		{"nameless item", "users:\n- just text\n", "without a name", 0o600},
		{"writable by others", "kind: Config\n", "can be written by others", 0o666},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := Update(t.Context(), path, []Entry{entry("prod")}, Options{})
			if f := fault.Of(err); f == nil || !strings.Contains(f.What, tc.says) || len(f.Hints) == 0 {
				t.Errorf("%v, want %q and a hint", err, tc.says)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != tc.text {
				t.Errorf("the file changed: %q %v", after, err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Fifty contexts, and somebody who writes at the same time by client-go's rules.
func TestV075ConcurrentWritersLoseNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config")
	cfg := clientcmdapi.NewConfig()
	for i := range 50 {
		name := fmt.Sprintf("own-%02d", i)
		cfg.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + name}
		cfg.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: name}
		cfg.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: name}
	}
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	const rounds = 20
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range rounds {
			if _, err := Update(context.WithoutCancel(t.Context()), path, []Entry{entry(fmt.Sprintf("zt-%02d", i))}, Options{}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for i := range rounds {
			appendAsClientGo(t, path, fmt.Sprintf("other-%02d", i))
		}
	})
	// A reader never sees half a file.
	stop := make(chan struct{})
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		look := time.NewTicker(5 * time.Millisecond) // the writers need the processor, too
		defer look.Stop()
		for {
			select {
			case <-stop:
				return
			case <-look.C:
				if c, err := clientcmd.LoadFromFile(path); err != nil || len(c.Contexts) < 50 {
					t.Errorf("a reader saw a torn file: %v", err)
					return
				}
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-reading

	got := load(t, path)
	if len(got.Contexts) != 50+2*rounds {
		t.Errorf("%d contexts, want %d", len(got.Contexts), 50+2*rounds)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !subsequence(lines(string(before)), lines(string(after))) {
		t.Error("lines of the other fifty changed")
	}
}

// appendAsClientGo adds a context by text, under client-go's lock, atomically.
func appendAsClientGo(t *testing.T, path, name string) {
	unlock, err := lock(context.WithoutCancel(t.Context()), path, path)
	if err != nil {
		t.Error(err)
		return
	}
	defer unlock()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	text := strings.Replace(string(data), "contexts:\n", "contexts:\n- context: {cluster: own-00, user: own-00}\n  name: "+name+"\n", 1)
	if err := replace(path, []byte(text)); err != nil {
		t.Error(err)
	}
}

// While zt writes, kubectl config is refused the file, by whichever name it knows
// it. ModifyConfig is what kubectl config runs.
func TestV075ClientGoWaitsForZT(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, ours, theirs string }{
		{"one name", "config", "config"},
		{"both by the symlink", "link", "link"},
		{"client-go by the target", "link", "config"},
		{"directory is a symlink", "dir/config", "dir/config"},
		{"client-go by the real directory", "dir/config", "config"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			if err := os.WriteFile(at("config"), []byte(theirs), 0o600); err != nil {
				t.Fatal(err)
			}
			for link, target := range map[string]string{"link": at("config"), "dir": dir} {
				if err := os.Symlink(target, at(link)); err != nil {
					t.Fatal(err)
				}
			}
			modify := func() error {
				paths := clientcmd.NewDefaultPathOptions()
				paths.GlobalFile, paths.EnvVar = at(tc.theirs), ""
				paths.LoadingRules.ExplicitPath = at(tc.theirs)
				cfg := load(t, at(tc.theirs))
				cfg.Clusters["added"] = &clientcmdapi.Cluster{Server: "https://added"}
				return clientcmd.ModifyConfig(paths, *cfg, false)
			}
			var res Result
			err := rewrite(t.Context(), at(tc.ours), false, time.Time{}, &res, func(_ *document, before []byte) (string, error) {
				if err := modify(); !os.IsExist(err) {
					t.Errorf("client-go wrote at the same time: %v", err)
				}
				return string(before), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := modify(); err != nil {
				t.Errorf("a lock stayed behind: %v", err)
			}
		})
	}
}

// An entry that has the name that zt needs but belongs to somebody else stays.
func TestEntriesOfOthersAreNotTaken(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text, says string }{
		{"the person's user", "users:\n- name: prod.zt.test\n  user: {token: mine}\n", "user"},
		{"the person's cluster", "clusters:\n- name: prod.zt.test\n  cluster: {server: https://mine}\n", "cluster"},
		{"the person's contexts", "contexts:\n- name: prod\n  context: {user: me, cluster: c}\n- name: prod.zt.test\n  context: {user: me, cluster: c}\n", "context"},
		{"another profile's", "users:\n- name: prod.zt.test\n  user:\n    exec: {command: kubectl-zt, args: [credential, --profile, work]}\n", "user"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, overwrite := range []bool{false, true} {
				_, err := Update(t.Context(), path, []Entry{entry("dev"), entry("prod")}, Options{Overwrite: overwrite})
				if f := fault.Of(err); f == nil || !strings.Contains(f.What, tc.says+` "prod`) || len(f.Hints) == 0 {
					t.Errorf("overwrite %v: %v, want a refusal that names the %s, and a hint", overwrite, err, tc.says)
				}
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != tc.text {
				t.Errorf("the file changed: %q %v", after, err)
			}
		})
	}
}

// A cluster of ours whose user the person has deleted is made whole again.
func TestAnOrphanedClusterIsStillOurs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config")
	mustUpdate(t, path, Options{}, entry("prod"))
	cfg := load(t, path)
	delete(cfg.AuthInfos, "prod.zt.test")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, path, Options{}, entry("prod"))
	if load(t, path).AuthInfos["prod.zt.test"] == nil {
		t.Error("the user did not come back")
	}
}

func TestAnUnreadableFileHasAHint(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(path, path); err != nil { // root may read anything, but not this
		t.Fatal(err)
	}
	_, err := Update(t.Context(), path, []Entry{entry("prod")}, Options{})
	if f := fault.Of(err); f == nil || len(f.Hints) == 0 || !strings.Contains(f.What, path) {
		t.Errorf("%v, want the path and a hint", err)
	}
}

func TestASymlinkStaysOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, link := filepath.Join(dir, "dotfiles"), filepath.Join(dir, "config")
	if err := os.WriteFile(target, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, link, Options{}, entry("dev"))
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Error("the symlink was replaced")
	}
	if len(load(t, target).Contexts) != 3 {
		t.Error("the target was not written")
	}
}

func TestALockedFileIsNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Update(ctx, path, []Entry{entry("prod")}, Options{}); err == nil {
		t.Error("wrote in spite of the lock")
	}
}

func FuzzUpdateKeepsWhatIsThere(f *testing.F) {
	f.Add(theirs)
	f.Add("clusters: []\n")
	f.Add("users:\n-\n  name: a\n  user: {}\n# c\n")
	f.Add("a: &x [1]\nclusters: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parse("f", []byte(text))
		if err != nil {
			return
		}
		var res Result
		after, err := update(d, []byte(text), []Entry{entry("prod"), entry("dev")}, Options{Current: "dev.zt.test"}, &res)
		if err != nil {
			return
		}
		d, err = parse("f", []byte(after))
		if err != nil {
			t.Fatalf("does not parse any more: %v\n%s", err, after)
		}
		again, err := update(d, []byte(after), []Entry{entry("prod"), entry("dev")}, Options{Current: "dev.zt.test"}, &res)
		if err != nil || again != after {
			t.Fatalf("the second time differs (%v):\n%s\n---\n%s", err, after, again)
		}
	})
}

func mustUpdate(t *testing.T, path string, o Options, entries ...Entry) Result {
	t.Helper()
	res, err := Update(t.Context(), path, entries, o)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Changed {
		t.Fatal("nothing changed")
	}
	return res
}

func load(t *testing.T, path string) *clientcmdapi.Config {
	t.Helper()
	cfg, err := clientcmd.LoadFromFile(path)
	if err != nil {
		data, _ := os.ReadFile(path)
		t.Fatalf("%v\n%s", err, data)
	}
	return cfg
}

func before(s, sep string) string {
	head, _, _ := strings.Cut(s, sep)
	return head
}

func lines(s string) []string { return strings.SplitAfter(strings.TrimSuffix(s, "\n"), "\n") }

func subsequence(want, got []string) bool {
	for _, g := range got {
		if len(want) > 0 && strings.TrimRight(g, "\r\n") == strings.TrimRight(want[0], "\r\n") {
			want = want[1:]
		}
	}
	return len(want) == 0
}

func TestOwnedAndRemoveUsers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config")
	if owned, err := Owned(path, "zt.test"); err != nil || len(owned) != 0 {
		t.Errorf("no file: %v %v", owned, err)
	}
	mustUpdate(t, path, Options{Current: "dev.zt.test"}, entry("prod"), entry("dev"))
	profile := entry("prod").Profile
	owned, err := Owned(path, profile)
	if diff := cmp.Diff(map[string]string{"prod.zt.test": "prod", "dev.zt.test": "dev"}, owned); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if owned, err := Owned(path, "another"); err != nil || len(owned) != 0 {
		t.Errorf("another profile: %v %v", owned, err)
	}
	if res, err := RemoveUsers(t.Context(), path, "another", "dev.zt.test"); err != nil || res.Changed {
		t.Errorf("another profile's: %+v %v", res, err)
	}
	if res, err := RemoveUsers(t.Context(), path, profile, "dev.zt.test"); err != nil || !res.Changed || res.Current != "" {
		t.Errorf("%+v %v", res, err)
	}
	cfg := load(t, path)
	if len(cfg.Clusters) != 1 || len(cfg.AuthInfos) != 1 || len(cfg.Contexts) != 1 || cfg.AuthInfos["prod.zt.test"] == nil {
		t.Errorf("%v %v %v", cfg.Clusters, cfg.AuthInfos, cfg.Contexts)
	}
}
