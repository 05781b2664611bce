package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/test/idp"
)

// buildDir is set by built; TestMain removes it.
var buildDir string

// built are the shipped binary, as a release builds it, in two versions.
var built = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp("", "zt-binaries")
	if err != nil {
		return nil, err
	}
	buildDir = dir
	binaries := map[string]string{}
	for _, v := range []string{"v1.0.0", "v1.1.0"} {
		path := filepath.Join(dir, v, "kubectl-zt")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -X main.version="+v, "-o", path, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		binaries[v] = path
	}
	return binaries, nil
})

// shell is a person's shell with the real program in it.
type shell struct {
	t      *testing.T
	w      *world
	dir    string
	binary string
	env    []string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	binaries, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, w: newWorld(t), dir: t.TempDir(), binary: binaries["v1.0.0"]}
	// The browser is this test's binary, by a name that TestMain knows.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "page")); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.w.environ(s.dir), "PATH="+bin+":"+os.Getenv("PATH"))
	t.Cleanup(func() { _, _, _ = s.try("agent", "--stop") })
	return s
}

func (s *shell) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), s.binary, args...)
	cmd.Env = s.env
	return cmd
}

func (s *shell) try(args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env = s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (s *shell) run(args ...string) string {
	s.t.Helper()
	out, errs, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("kubectl zt %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// agentPID is that of the running agent; 0 when there is none.
func (s *shell) agentPID() int {
	out, _, err := s.try("version", "-o", "json")
	var v versionInfo
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || v.Agent == "" {
		return 0
	}
	out, _, _ = s.try("status", "-o", "json")
	var st agent.StatusResult
	if json.Unmarshal([]byte(out), &st) != nil {
		return 0
	}
	return st.PID
}

func (s *shell) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if pid < 2 {
		t.Fatalf("there is no agent (pid %d)", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestV072AgentKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	t.Run("of a login", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		s.run("trust", s.w.gw.Pinned())
		s.w.mu.Lock()
		s.w.away = true
		s.w.mu.Unlock()
		cmd := s.command("login")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.eventually("the page opens", func() bool { return len(s.w.opened()) == 1 })
		s.w.mu.Lock()
		s.w.away = false
		s.w.mu.Unlock()
		killed := s.agentPID()
		kill9(t, killed)
		// The command itself starts another agent and begins again.
		if err := cmd.Wait(); err != nil {
			t.Fatalf("login: %v\n%s", err, errs.String())
		}
		if pid := s.agentPID(); pid == killed || pid == 0 {
			t.Errorf("agent %d after %d", pid, killed)
		}
		if n := len(s.w.opened()); n != 2 {
			t.Errorf("%d pages, want 2", n)
		}
		s.run("clusters")
	})
	t.Run("of a request", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		s.run("login", s.w.gw.Pinned())
		s.run("kubeconfig")
		s.w.idp.SetFaults(idp.Faults{Delay: time.Minute, On: []idp.Endpoint{idp.Discovery}})
		before := s.w.idp.Counters().Discoveries
		cmd := s.command("login", "--force") // hangs at the issuer
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.eventually("the issuer is asked", func() bool { return s.w.idp.Counters().Discoveries > before })
		killed := s.agentPID()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		kill9(t, killed)
		s.w.idp.SetFaults(idp.Faults{})
		began := time.Now()
		s.run("trust", s.w.gw.Pinned()) // the next command that needs an agent
		if took := time.Since(began); took > time.Second {
			t.Errorf("the next command took %s", took)
		}
		if pid := s.agentPID(); pid == killed || pid == 0 {
			t.Errorf("agent %d after %d", pid, killed)
		}
		s.run("login")
		s.run("connect", "prod")
	})
	t.Run("two users on one host", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("only root can be two users")
		}
		s := newShell(t)
		s.run("trust", s.w.gw.Pinned())
		other := *s
		other.dir = filepath.Join("/tmp", "zt-other-"+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(other.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(other.dir) })
		if err := os.Chown(other.dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(other.dir, "kubectl-zt")
		// By a program of its own: a file that this process has open for writing, and a
		// child that starts just then inherits, cannot be run (golang/go#22315).
		if out, err := exec.CommandContext(t.Context(), "cp", s.binary, copied).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		as := func(env []string, args ...string) (string, error) {
			cmd := exec.CommandContext(t.Context(), copied, args...)
			cmd.Env, cmd.Dir = env, "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		theirs := append(s.w.environ(other.dir), "PATH=/usr/bin:/bin")
		if out, err := as(theirs, "trust", s.w.gw.Pinned()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		defer func() { _, _ = as(theirs, "agent", "--stop") }()
		shown, _ := as(theirs, "status", "-o", "json")
		var st agent.StatusResult
		if err := json.Unmarshal([]byte(shown), &st); err != nil || st.PID == s.agentPID() || st.PID == 0 {
			t.Errorf("%s: %v", shown, err)
		}
		// Pointed at the first one's home, the second gets nowhere.
		out, err := as(s.env, "status")
		var e *exec.ExitError
		if !errors.As(err, &e) {
			t.Errorf("another user reached the agent: %s", out)
		}
	})
}

// client-go waits until the plugin's stdout is closed by everybody who has it.
func TestAgentHoldsNoneOfItsParentsFiles(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := s.command("agent")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, w, w
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(r)
		read <- err
	}()
	select {
	case <-read:
	case <-time.After(5 * time.Second):
		t.Fatal("the agent holds the pipe of the command that started it")
	}
	pid := s.agentPID()
	if sid, err := getsid(pid); err == nil && sid != pid {
		t.Errorf("the agent is in session %d, not in its own", sid)
	}
}

func getsid(pid int) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return strconv.Atoi(fields[3])
}

// Twenty commands that find no agent start one.
func TestOneAgentForManyCommands(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	pids := make([]int, 20)
	var wg sync.WaitGroup
	for i := range pids {
		wg.Go(func() {
			out, _, _ := s.try("status", "-o", "json")
			var st agent.StatusResult
			if err := json.Unmarshal([]byte(out), &st); err == nil {
				pids[i] = st.PID
			}
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid == 0 || pid != pids[0] {
			t.Fatalf("agents %v", pids)
		}
	}
}

// A newer binary takes over from an idle agent: sessions, port and all.
func TestNewerAgentTakesOver(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.run("login", s.w.gw.Pinned())
	s.run("kubeconfig")
	before, err := os.ReadFile(filepath.Join(s.dir, "home/.kube/zt"))
	if err != nil {
		t.Fatal(err)
	}
	old := s.agentPID()
	binaries, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s.binary = binaries["v1.1.0"]
	s.run("status") // answered by the old one, which then gives way
	s.eventually("the new agent answers", func() bool { return s.agentPID() != old && s.agentPID() != 0 })
	if out := s.run("version"); !strings.Contains(out, "agent      v1.1.0") {
		t.Error(out)
	}
	out := s.run("status", "-o", "json")
	var st agent.StatusResult
	if err := json.Unmarshal([]byte(out), &st); err != nil || len(st.Sessions) != 1 || !st.Sessions[0].LoggedIn || st.Sessions[0].User != "alice@example.com" {
		t.Fatalf("%s %v", out, err)
	}
	if info, err := s.w.execInfo("prod", false); err != nil {
		t.Fatal(err)
	} else {
		s.env = append(s.env, "KUBERNETES_EXEC_INFO="+info)
	}
	if doc := s.run("credential", "--profile", "zt.test", "--cluster", "prod"); !strings.Contains(doc, `"token":"token-`) {
		t.Error(doc)
	}
	s.run("kubeconfig")
	after, err := os.ReadFile(filepath.Join(s.dir, "home/.kube/zt"))
	port := func(b []byte) string { return strings.Split(strings.SplitN(string(b), "@127.0.0.1:", 2)[1], "\n")[0] }
	if err != nil || port(before) != port(after) {
		t.Errorf("port %s became %s", port(before), port(after))
	}
	if n := len(s.w.opened()); n != 1 {
		t.Errorf("%d logins", n)
	}
	s.eventually("the old one leaves", func() bool { return errors.Is(syscall.Kill(old, 0), syscall.ESRCH) || zombie(old) })
	// An older command is served as well, and takes nothing over.
	s.binary = binaries["v1.0.0"]
	s.run("status")
	if out := s.run("version"); !strings.Contains(out, "agent      v1.1.0") {
		t.Error(out)
	}
}

// zombie: in a container nobody may reap what was orphaned.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// What every kubectl waits for, in size; times are the benchmark's.
func TestCredentialIsSmall(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	fi, err := os.Stat(s.binary)
	if err != nil || fi.Size() > 12<<20 {
		t.Errorf("the stripped binary has %d bytes, %v", fi.Size(), err)
	}
	s.run("login", s.w.gw.Pinned())
	info, err := s.w.execInfo("prod", false)
	if err != nil {
		t.Fatal(err)
	}
	measure := filepath.Join(s.dir, "rss")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", measure, "./testdata/rss")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), measure, s.binary, "credential", "--profile", "zt.test", "--cluster", "prod")
	cmd.Env = slices.Concat(s.env, []string{"KUBERNETES_EXEC_INFO=" + info})
	var doc bytes.Buffer
	cmd.Stderr = &doc
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(doc.Bytes(), []byte("token-")) {
		t.Fatalf("%s %v", doc.Bytes(), err)
	}
	if kib, err := strconv.Atoi(string(out)); err != nil || kib > 10<<10 {
		t.Errorf("%d KiB resident, want under 10 MiB", kib)
	} else {
		t.Logf("%d KiB resident", kib)
	}
	// The agent keeps a session in less than 30 MB.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.agentPID()))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil || kib > 30<<10 {
				t.Errorf("the agent has %d KiB resident, %v", kib, err)
			}
			t.Logf("agent: %d KiB resident", kib)
		}
	}
}
