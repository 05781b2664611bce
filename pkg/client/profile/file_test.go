//go:build unix

package profile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// Not parallel: the umask belongs to the whole process.
func TestV071DirectoriesAndFilesAreTheUsersAlone(t *testing.T) {
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
	home := testHome(t)

	t.Run("umask 000", func(t *testing.T) {
		if err := home.Prepare(); err != nil {
			t.Fatal(err)
		}
		if err := home.Save(&Profile{Name: "example.com"}); err != nil {
			t.Fatal(err)
		}
		if err := home.SetCurrent("example.com"); err != nil {
			t.Fatal(err)
		}
		if err := home.SaveLocal(Local{Port: 1}); err != nil {
			t.Fatal(err)
		}
		if err := CreateFile(home.Key("example.com"), []byte("k")); err != nil {
			t.Fatal(err)
		}
		files := 0
		err := filepath.WalkDir(home.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			} else {
				files++
			}
			fi, err := d.Info()
			if err == nil && fi.Mode().Perm() != want {
				t.Errorf("%s is %04o, want %04o", path, fi.Mode().Perm(), want)
			}
			return err
		})
		if err != nil || files != 4 {
			t.Fatalf("%d files, %v", files, err)
		}
	})

	for _, tc := range []struct {
		name  string
		plant func(t *testing.T, path string)
		says  string
	}{
		{"symlink", func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "victim")
			must(t, os.WriteFile(target, []byte("{}"), 0o600))
			must(t, os.Symlink(target, path))
		}, "symlink"},
		{"dangling symlink", func(t *testing.T, path string) { must(t, os.Symlink("/nonexistent/zt", path)) }, "symlink"},
		{"foreign owner", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("{}"), 0o600))
			chown(t, path)
		}, "another user"},
		{"readable by others", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("{}"), 0o644))
		}, "by others"},
		{"pipe", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "not a regular file"},
		{"directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home := testHome(t)
			must(t, home.Prepare())
			tc.plant(t, home.file("p"))
			before, _ := os.Lstat(home.file("p"))
			if _, err := home.Load("p"); !refused(err, tc.says) {
				t.Errorf("read: %v, want a refusal that says %q", err, tc.says)
			}
			if err := home.Save(&Profile{Name: "p"}); !refused(err, tc.says) {
				t.Errorf("write: %v, want a refusal that says %q", err, tc.says)
			}
			after, err := os.Lstat(home.file("p"))
			if err != nil || !os.SameFile(before, after) {
				t.Error("what was planted was replaced")
			}
		})
	}

	for _, tc := range []struct {
		name string
		bend func(t *testing.T, h *Home)
		says string
	}{
		{"group-writable parent", func(t *testing.T, h *Home) { must(t, os.Chmod(filepath.Dir(h.Dir), 0o775)) }, "can be written by others"},
		{"world-writable grandparent", func(t *testing.T, h *Home) {
			must(t, os.Chmod(filepath.Dir(filepath.Dir(h.Dir)), 0o777))
		}, "can be written by others"},
		{"group-writable directory", func(t *testing.T, h *Home) {
			must(t, os.Mkdir(h.Dir, 0o700))
			must(t, os.Chmod(h.Dir, 0o770))
		}, "can be written by others"},
		{"symlink as directory", func(t *testing.T, h *Home) { must(t, os.Symlink(t.TempDir(), h.Dir)) }, "symlink"},
		{"foreign directory", func(t *testing.T, h *Home) {
			must(t, os.Mkdir(h.Dir, 0o700))
			chown(t, h.Dir)
		}, "another user"},
		{"foreign parent", func(t *testing.T, h *Home) { chown(t, filepath.Dir(h.Dir)) }, "another user"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := testHome(t)
			tc.bend(t, &h)
			if err := h.Prepare(); !refused(err, tc.says) {
				t.Errorf("%v, want a refusal that says %q", err, tc.says)
			}
		})
	}

	t.Run("own directory open to readers is closed", func(t *testing.T) {
		h := testHome(t)
		must(t, os.Mkdir(h.Dir, 0o755))
		must(t, h.Prepare())
		fi, err := os.Stat(h.Dir)
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", fi.Mode(), err)
		}
	})
}

func TestWriteFileNeverLeavesHalf(t *testing.T) {
	t.Parallel()
	h := testHome(t)
	must(t, h.Prepare())
	path := filepath.Join(h.Dir, "f")
	must(t, WriteFile(path, []byte("old")))
	must(t, WriteFile(path, []byte("new")))
	data, err := ReadFile(path)
	if err != nil || string(data) != "new" {
		t.Fatalf("%q %v", data, err)
	}
	if err := CreateFile(path, []byte("x")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over an existing file: %v", err)
	}
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".f.") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// testHome is two levels below t.TempDir, which the testing package makes 0777.
func testHome(t *testing.T) Home {
	t.Helper()
	base := filepath.Join(t.TempDir(), "a", "b")
	must(t, os.Chmod(filepath.Dir(filepath.Dir(base)), 0o755))
	must(t, os.MkdirAll(base, 0o700))
	must(t, os.Chmod(base, 0o700))
	must(t, os.Chmod(filepath.Dir(base), 0o700))
	dir := filepath.Join(base, "zt")
	return Home{Dir: dir, Run: filepath.Join(dir, "run")}
}

func chown(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file to somebody else")
	}
	must(t, os.Chown(path, 65534, 65534))
}

func refused(err error, says string) bool {
	var f *fault.Fault
	return errors.As(err, &f) && f.Exit == fault.ExitUntrusted && strings.Contains(f.What, says) && len(f.Hints) > 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Looking for zt's place leaves a directory that is not zt's as it is.
func TestFindChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	home, err := Find(func(name string) string {
		return map[string]string{"HOME": "/h", "XDG_RUNTIME_DIR": dir}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%s became %v (%v)", dir, fi.Mode(), err)
	}
	if !strings.HasPrefix(home.Run, dir) && len(dir) < maxSocketPath-len("/zt/"+socketName) {
		t.Errorf("the runtime directory was not used: %s", home.Run)
	}
}

// What cannot be written tells the person what to do.
func TestWriteErrorsHaveAHint(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone", "file")
	for name, err := range map[string]error{"WriteFile": WriteFile(gone, nil), "CreateFile": CreateFile(gone, nil)} {
		if f := fault.Of(err); f == nil || len(f.Hints) == 0 || !strings.Contains(f.What, gone) {
			t.Errorf("%s: %v, want the path and a hint", name, err)
		}
	}
}

func TestForgetAndListHaveAHint(t *testing.T) {
	t.Parallel()
	home := testHome(t)
	if err := os.MkdirAll(filepath.Join(home.Key("example.com"), "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.profiles(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, list := home.List()
	for name, err := range map[string]error{"Forget": home.Forget("example.com"), "List": list} {
		if f := fault.Of(err); f == nil || len(f.Hints) == 0 {
			t.Errorf("%s: %v, want a hint", name, err)
		}
	}
}
