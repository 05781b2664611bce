package env_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/kube-zt/zt/test/env"
)

// transports are the two ways in which kubectl streams.
var transports = []struct {
	name string
	env  []string
}{
	{"websocket", nil},
	{"spdy", []string{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false", "KUBECTL_PORT_FORWARD_WEBSOCKETS=false"}},
}

// bulk is what is sent to see every byte arrive.
var bulk = func() []byte {
	b := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// TestStream has the stream node do for stock kubectl what a kubelet does.
func TestStream(t *testing.T) {
	t.Parallel()
	cp := env.Shared(t)
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			s := newStreams(t, cp, transport.name, transport.env)
			for name, test := range map[string]func(*testing.T){
				"exec":         s.exec,
				"terminal":     s.terminal,
				"disconnect":   s.disconnect,
				"attach":       s.attach,
				"port-forward": s.portForward,
				"cp":           s.copyFiles,
			} {
				t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
			}
		})
	}
}

// streams runs kubectl over one transport, in a namespace with a pod named idle.
type streams struct {
	cp        *env.ControlPlane
	namespace string
	env       []string
}

func newStreams(t *testing.T, cp *env.ControlPlane, transport string, environ []string) *streams {
	t.Helper()
	s := &streams{cp, "stream-" + transport, environ}
	if _, err := cp.ServiceAccountToken(t.Context(), s.namespace, "default", time.Hour); err != nil {
		t.Fatal(err)
	}
	s.pod(t, "idle", "")
	return s
}

// pod makes a pod with one container and waits until it runs.
func (s *streams) pod(t *testing.T, name, container string) {
	t.Helper()
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec: {restartPolicy: Never, containers: [{name: main, image: x%s}]}\n",
		name, s.namespace, container)
	if err := s.cp.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	s.wait(t, name, "jsonpath={.status.containerStatuses[0].started}")
}

func (s *streams) wait(t *testing.T, pod, what string) {
	t.Helper()
	if _, _, err := s.kubectl(t, nil, "wait", "pod/"+pod, "--for="+what, "--timeout=30s"); err != nil {
		t.Fatal(err)
	}
}

func (s *streams) kubectl(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return s.cp.Run(t.Context(), env.Command{Env: s.env, Stdin: stdin}, append([]string{"-n", s.namespace}, args...)...)
}

// start starts kubectl and leaves it running.
func (s *streams) start(ctx context.Context, t *testing.T, args ...string) (cmd *exec.Cmd, stdout *bufio.Reader) {
	t.Helper()
	cmd, err := s.cp.Cmd(ctx, env.Command{Env: s.env}, append([]string{"-n", s.namespace}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cp.Group().Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewReader(out)
}

func (s *streams) exec(t *testing.T) {
	for _, test := range []struct {
		name           string
		stdin          []byte
		command        string
		stdout, stderr string
		code           int
	}{
		{name: "exit code", command: "exit 42", code: 42},
		{name: "signal", command: "kill -KILL $$", code: 128 + 9},
		{name: "both outputs", command: "echo out; echo diag >&2", stdout: "out\n", stderr: "diag\n"},
		{name: "end of the input", stdin: []byte("one\ntwo\n"), command: "cat; echo end", stdout: "one\ntwo\nend\n"},
		{name: "answer after the end of the input", stdin: []byte("a"), command: "wc -c; exit 3", stdout: "1\n", code: 3},
		{name: "command that reads nothing", stdin: bulk[:1<<20], command: "exit 5", code: 5},
		{name: "bulk in", stdin: bulk, command: "sha256sum | cut -d' ' -f1", stdout: sum(bulk) + "\n"},
		{name: "bulk both ways", stdin: bulk, command: "cat", stdout: string(bulk)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			args := []string{"exec", "idle"}
			var stdin io.Reader
			if test.stdin != nil {
				args = append(args, "-i")
				stdin = bytes.NewReader(test.stdin)
			}
			stdout, stderr, err := s.kubectl(t, stdin, append(args, "--", "sh", "-c", test.command)...)
			if got := env.ExitCode(err); got != test.code {
				t.Errorf("exit code %d, want %d (%v)", got, test.code, err)
			}
			if stdout != test.stdout {
				t.Errorf("stdout has %d bytes, want %d: %.80q", len(stdout), len(test.stdout), stdout)
			}
			if !strings.HasSuffix(stderr, test.stderr) { // after what kubectl says itself
				t.Errorf("stderr %q, want %q", stderr, test.stderr)
			}
		})
	}
	t.Run("no such command", func(t *testing.T) {
		t.Parallel()
		if _, stderr, err := s.kubectl(t, nil, "exec", "idle", "--", "/no/such"); err == nil || !strings.Contains(stderr, "no such file") {
			t.Errorf("stderr %q, %v", stderr, err)
		}
	})
	t.Run("no such container", func(t *testing.T) {
		t.Parallel()
		if _, stderr, err := s.kubectl(t, nil, "exec", "idle", "-c", "other", "--", "true"); err == nil || !strings.Contains(stderr, "container other is not valid") {
			t.Errorf("stderr %q, %v", stderr, err)
		}
	})
}

func (s *streams) terminal(t *testing.T) {
	t.Run("exec", func(t *testing.T) {
		t.Parallel()
		if code := s.onTerminal(t, "exec", "-it", "idle", "--", "sh"); code != 9 {
			t.Errorf("exit code %d, want 9", code)
		}
	})
	t.Run("attach", func(t *testing.T) {
		t.Parallel()
		s.pod(t, "shell", `, stdin: true, stdinOnce: true, tty: true, command: [sh]`)
		if code := s.onTerminal(t, "attach", "-it", "shell"); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	})
}

// onTerminal has kubectl on a pty of ours, with a shell behind it that is told to
// end with code 9. It returns kubectl's own.
func (s *streams) onTerminal(t *testing.T, args ...string) int {
	cmd, err := s.cp.Cmd(t.Context(), env.Command{Env: append(s.env, "TERM=xterm")}, append([]string{"-n", s.namespace}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
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
	// its time through three processes.
	expect := func(command, want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		again := time.NewTicker(500 * time.Millisecond)
		defer again.Stop()
		_, _ = io.WriteString(screen, command+"\n")
		for {
			select {
			case line, ok := <-seen:
				if line == want {
					return
				}
				if !ok {
					t.Fatalf("%s: ended before %q", command, want)
				}
			case <-again.C:
				_, _ = io.WriteString(screen, command+"\n")
			case <-deadline:
				t.Fatalf("%s: never %q", command, want)
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
	return env.ExitCode(cmd.Wait())
}

// disconnect sees that a command ends with its connection.
func (s *streams) disconnect(t *testing.T) {
	for name, flags := range map[string][]string{"plain": nil, "terminal": {"-t"}} {
		t.Run(name, func(t *testing.T) {
			args := append(append([]string{"exec"}, flags...), "idle", "--", "sh", "-c", "echo $$; exec sleep 1003")
			cmd, stdout := s.start(t.Context(), t, args...)
			pid, err := stdout.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid = strings.TrimSpace(pid)
			if _, ok := running(pid); !ok {
				t.Fatalf("process %q does not run", pid)
			}
			_ = cmd.Process.Kill()
			eventually(t, "the command has ended", func() bool { _, ok := running(pid); return !ok })
		})
	}
}

func (s *streams) attach(t *testing.T) {
	t.Run("input, output, exit", func(t *testing.T) {
		t.Parallel()
		s.pod(t, "talker", `, stdin: true, stdinOnce: true, command: [sh, -c, 'while read -r l; do echo "got $l"; echo "diag $l" >&2; done; exit 4']`)
		stdout, stderr, err := s.kubectl(t, strings.NewReader("one\ntwo\n"), "attach", "-i", "talker")
		if err != nil || stdout != "got one\ngot two\n" || !strings.Contains(stderr, "diag one\ndiag two\n") {
			t.Errorf("stdout %q, stderr %q, %v", stdout, stderr, err)
		}
		s.wait(t, "talker", "jsonpath={.status.phase}=Failed")
		code, _, err := s.kubectl(t, nil, "get", "pod", "talker", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}")
		if err != nil || code != "4" {
			t.Errorf("exit code %s, %v", code, err)
		}
		if stdout, _, err = s.kubectl(t, nil, "logs", "talker"); err != nil || !strings.Contains(stdout, "got two\n") {
			t.Errorf("log %q, %v", stdout, err)
		}
	})
	t.Run("run -i", func(t *testing.T) {
		t.Parallel()
		stdout, _, err := s.kubectl(t, strings.NewReader("hello\n"), "run", "runner", "-i", "--rm", "--image=x", "--restart=Never", "--", "sh", "-c", "cat; exit 6")
		if env.ExitCode(err) != 6 || !strings.Contains(stdout, "hello\n") {
			t.Errorf("stdout %q, %v", stdout, err)
		}
	})
	t.Run("debug", func(t *testing.T) {
		t.Parallel()
		// Its input stays open when who is attached goes, so it must know when to end.
		stdout, _, err := s.kubectl(t, strings.NewReader("hello\n"), "debug", "idle", "-i", "--image=x", "--container=helper", "--profile=general", "--", "sh", "-c", "read -r l; echo helped: $l")
		if err != nil || !strings.Contains(stdout, "helped: hello\n") {
			t.Errorf("stdout %q, %v", stdout, err)
		}
	})
}

// portForward forwards to a server of ours and closes one direction at a time.
func (s *streams) portForward(t *testing.T) {
	t.Run("up, end of the input, then the answer", func(t *testing.T) {
		t.Parallel()
		conn := s.forward(t, func(c *net.TCPConn) {
			received := sha256.New()
			_, _ = io.Copy(received, c) // to the end that the client sends
			_, _ = io.WriteString(c, hex.EncodeToString(received.Sum(nil)))
		})
		if _, err := conn.Write(bulk); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || string(answer) != sum(bulk) {
			t.Errorf("the server received %s, want %s (%v)", answer, sum(bulk), err)
		}
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		conn := s.forward(t, func(c *net.TCPConn) { _, _ = c.Write(bulk) })
		received, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(received, bulk) {
			t.Errorf("received %d bytes with sum %s, want %d with %s (%v)", len(received), sum(received), len(bulk), sum(bulk), err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		conn := s.forwardTo(t, l.Addr().(*net.TCPAddr).Port)
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("received %q", answer)
		}
	})
}

// forward starts a server and kubectl port-forward to it, and connects.
func (s *streams) forward(t *testing.T, serve func(*net.TCPConn)) *net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c.(*net.TCPConn))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	return s.forwardTo(t, l.Addr().(*net.TCPAddr).Port)
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

func (s *streams) forwardTo(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	_, stdout := s.start(t.Context(), t, "port-forward", "--address=127.0.0.1", "pod/idle", fmt.Sprintf(":%d", port))
	line, err := stdout.ReadString('\n')
	match := forwarding.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("kubectl said %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	conn, err := net.Dial("tcp", match[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

func (s *streams) copyFiles(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	content := bulk[:5<<20]
	if err := os.WriteFile(filepath.Join(here, "file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.kubectl(t, nil, "cp", filepath.Join(here, "file"), "idle:"+filepath.Join(there, "up")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.kubectl(t, nil, "cp", "idle:"+filepath.Join(there, "up"), filepath.Join(here, "down")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(there, "up"), filepath.Join(here, "down")} {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, want %d (%v)", filepath.Base(name), len(got), len(content), err)
		}
	}
}

// eventually polls until done, for at most 10 seconds.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 seconds: %s", what)
		}
	}
}
