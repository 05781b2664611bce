package e2e

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
)

func (g *streams) terminal(t *testing.T) {
	t.Run("exec", func(t *testing.T) {
		t.Parallel()
		if code := g.onTerminal(t, "exec", "-it", "idle", "--", "sh"); code != 9 {
			t.Errorf("exit code %d, want 9", code)
		}
	})
	t.Run("attach", func(t *testing.T) {
		t.Parallel()
		g.pod(t, "shell", corev1.Container{Stdin: true, StdinOnce: true, TTY: true, Command: []string{"sh"}})
		if code := g.onTerminal(t, "attach", "-it", "shell"); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	})
}

// onTerminal has kubectl on a terminal of ours, with a shell behind it that is
// told to end with code 9. It returns kubectl's own.
func (g *streams) onTerminal(t *testing.T, args ...string) int {
	cmd := g.command(t.Context(), args...)
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		for lines := bufio.NewScanner(screen); lines.Scan(); {
			seen <- strings.TrimSpace(lines.Text())
		}
	}()
	// expect types a command until its output is as wanted: a change of size takes
	// its time through all the processes on the way.
	expect := func(command, want string) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		again := time.NewTicker(500 * time.Millisecond)
		defer again.Stop()
		var all []string
		_, _ = io.WriteString(screen, command+"\n")
		for {
			select {
			case line, ok := <-seen:
				if line == want {
					return
				}
				if !ok {
					t.Fatalf("%s: ended before %q: %q", command, want, all)
				}
				all = append(all, line)
			case <-again.C:
				_, _ = io.WriteString(screen, command+"\n")
			case <-deadline:
				t.Fatalf("%s: never %q: %q", command, want, all)
			}
		}
	}
	expect("stty size", "40 100")
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 50, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	expect("stty size", "50 120")
	expect("test -t 0 && test -t 1 && test -t 2 && echo a ''terminal", "a terminal")
	_, _ = io.WriteString(screen, "exit 9\n")
	for range seen {
	}
	return exitCode(cmd.Wait())
}
