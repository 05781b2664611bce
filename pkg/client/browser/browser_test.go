package browser

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a computer with the given environment (NAME=value) and programs.
func fake(goos string, env []string, programs ...string) Environment {
	return Environment{
		GOOS: goos,
		Getenv: func(name string) string {
			for _, e := range env {
				if v, ok := strings.CutPrefix(e, name+"="); ok {
					return v
				}
			}
			return ""
		},
		LookPath: func(name string) (string, error) {
			for _, p := range programs {
				if p == name {
					return "/bin/" + p, nil
				}
			}
			return "", errors.New("not found")
		},
		system: func(string) error { return errors.New("the system's browser was started") },
	}
}

func TestUsable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		goos     string
		env      []string
		programs []string
		want     string
	}{
		{"desktop", "linux", []string{"DISPLAY=:0"}, []string{"xdg-open"}, ""},
		{"wayland", "linux", []string{"WAYLAND_DISPLAY=wayland-0"}, []string{"x-www-browser"}, ""},
		{"wsl", "linux", []string{"WSL_DISTRO_NAME=Debian"}, []string{"www-browser"}, ""},
		{"freebsd", "freebsd", []string{"DISPLAY=:0"}, []string{"xdg-open"}, ""},
		{"mac", "darwin", nil, nil, ""},
		{"windows", "windows", nil, nil, ""},
		{"server", "linux", nil, []string{"xdg-open"}, "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"},
		{"no opener", "linux", []string{"DISPLAY=:0"}, nil, "there is no program to open a browser with (xdg-open, x-www-browser, www-browser)"},
		{"ssh", "linux", []string{"SSH_CONNECTION=1 2 3 4"}, []string{"xdg-open"}, "this is a remote shell (SSH_CONNECTION is set)"},
		{"ssh with forwarded display", "linux", []string{"SSH_TTY=/dev/pts/0", "DISPLAY=localhost:10.0"}, []string{"xdg-open"}, "this is a remote shell (SSH_TTY is set)"},
		{"ssh to a mac", "darwin", []string{"SSH_CLIENT=1 2 3"}, nil, "this is a remote shell (SSH_CLIENT is set)"},
		{"helper of a remote editor", "linux", []string{"SSH_CONNECTION=1 2 3 4", "BROWSER=helper.sh"}, []string{"helper.sh"}, ""},
		{"second choice", "linux", []string{"BROWSER=gone:firefox"}, []string{"firefox"}, ""},
		{"choice is gone", "darwin", []string{"BROWSER=gone"}, nil, `no program of $BROWSER ("gone") was found`},
		{"none", "darwin", []string{"BROWSER=none"}, nil, "$BROWSER is none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := fake(tt.goos, tt.env, tt.programs...).Usable(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestChosen(t *testing.T) {
	t.Parallel()
	const address = "https://idp.test/a?b=%s&c;d"
	tests := []struct {
		name, value, goos string
		want              []string
	}{
		{"program", "firefox", "linux", []string{"/bin/firefox", address}},
		{"arguments", "firefox --new-window", "linux", []string{"/bin/firefox", "--new-window", address}},
		{"placeholder", "firefox --url=%s --x", "linux", []string{"/bin/firefox", "--url=" + address, "--x"}},
		{"list", ":gone --a:firefox --b:other", "linux", []string{"/bin/firefox", "--b", address}},
		{"windows path", `C:\firefox.exe`, "windows", []string{`/bin/C:\firefox.exe`, address}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := fake(tt.goos, []string{"BROWSER=" + tt.value}, "firefox", "other", `C:\firefox.exe`).chosen(address)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	e := fake("linux", nil)
	for _, address := range []string{"", "--help", "http://idp.test/", "file:///etc/passwd", "javascript:alert(1)", "https:opaque", "https://", "https://a\x7f"} {
		if err := e.Open(t.Context(), address); err == nil || strings.Contains(err.Error(), "was started") {
			t.Errorf("%q: %v", address, err)
		}
	}
	if err := e.Open(t.Context(), "https://idp.test/"); err == nil || !strings.Contains(err.Error(), "was started") {
		t.Errorf("a good address: %v", err)
	}
}

// TestOpenRunsTheChosenProgram runs real programs. Their output must not appear
// on ours, and the address must arrive as one argument.
func TestOpenRunsTheChosenProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		return "sh " + path
	}
	open := func(ctx context.Context, program string) error {
		e := Host()
		e.Getenv = func(name string) string {
			if name == "BROWSER" {
				return program
			}
			return os.Getenv(name)
		}
		return e.Open(ctx, "https://idp.test/a?b=c&d=$(id)")
	}
	seen := filepath.Join(dir, "seen")
	if err := open(t.Context(), script("good", `printf '%s|' "$@" >`+seen+`; echo noise; echo noise >&2`)); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(seen)
	if err != nil || string(got) != "https://idp.test/a?b=c&d=$(id)|" {
		t.Errorf("arguments %q, %v", got, err)
	}
	if err := open(t.Context(), script("bad", "exit 3")); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a program that fails: %v", err)
	}
	isOpen := filepath.Join(dir, "open") // while it is there, windows stay open
	if err := os.WriteFile(isOpen, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	window := script("window", "while [ -e "+isOpen+" ]; do sleep 0.01; done")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(ctx, window); !errors.Is(err, context.Canceled) {
		t.Errorf("a window that stays open: %v", err)
	}
	began := time.Now()
	if err := open(t.Context(), window); err != nil || time.Since(began) < patience/2 {
		t.Errorf("a window that stays open: %v after %s", err, time.Since(began))
	}
}
