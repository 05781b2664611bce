package env_test

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/test/env"
)

// TestLogs needs no transport of its own: logs are plain HTTP.
func TestLogs(t *testing.T) {
	t.Parallel()
	s := newStreams(t, env.Shared(t), "logs", nil)
	s.pod(t, "writer", `, command: [sh, -c, 'echo one; echo diag >&2; mkfifo more; exec 3<>more; while read -r l <&3; do echo "$l"; test "$l" = last && exit; done']`)
	_, followed := s.start(t.Context(), t, "logs", "-f", "writer")
	next := func() string {
		t.Helper()
		line, err := followed.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	first := next() + next()
	if !strings.Contains(first, "one\n") || !strings.Contains(first, "diag\n") {
		t.Fatalf("the log starts with %q", first)
	}
	for _, line := range []string{"two\n", "last\n"} {
		if _, _, err := s.kubectl(t, strings.NewReader(line), "exec", "-i", "writer", "--", "sh", "-c", "cat >more"); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != line {
			t.Errorf("followed %q, want %q", got, line)
		}
	}
	if rest, err := io.ReadAll(followed); err != nil || len(rest) > 0 {
		t.Errorf("after the end of the container: %q, %v", rest, err)
	}
	s.wait(t, "writer", "jsonpath={.status.phase}=Succeeded")

	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"tail", []string{"--tail=2"}, `^two\nlast\n$`},
		{"since", []string{"--since=1h", "--tail=1"}, `^last\n$`},
		{"since later", []string{"--since-time=2999-01-01T00:00:00Z"}, `^$`},
		{"limit", []string{"--tail=1", "--limit-bytes=3"}, `^las$`},
		{"timestamps", []string{"--tail=1", "--timestamps"}, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z last\n$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stdout, _, err := s.kubectl(t, nil, append([]string{"logs", "writer"}, test.args...)...)
			if err != nil || !regexp.MustCompile(test.want).MatchString(stdout) {
				t.Errorf("%q, %v; want %s", stdout, err, test.want)
			}
		})
	}
	t.Run("previous", func(t *testing.T) {
		t.Parallel()
		if _, stderr, err := s.kubectl(t, nil, "logs", "writer", "--previous"); err == nil || !strings.Contains(stderr, "not found") {
			t.Errorf("%q, %v", stderr, err)
		}
	})
}

// TestDelete sees processes end with their pod, in the given grace.
func TestDelete(t *testing.T) {
	t.Parallel()
	s := newStreams(t, env.Shared(t), "delete", nil)
	for _, test := range []struct {
		name, trap, grace string
		polite            bool
	}{
		{"polite", "", "30", true},
		{"stubborn", "trap '' TERM; ", "1", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s.pod(t, test.name, fmt.Sprintf(`, command: [sh, -c, "%secho $$; while :; do sleep 0.05; done"]`, test.trap))
			_, log := s.start(t.Context(), t, "logs", "-f", test.name)
			pid, err := log.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if _, _, err := s.kubectl(t, nil, "delete", "pod", test.name, "--grace-period="+test.grace); err != nil {
				t.Fatal(err)
			}
			if name, ok := running(strings.TrimSpace(pid)); ok {
				t.Errorf("%s still runs", name)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}
