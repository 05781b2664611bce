package env_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/kube-zt/zt/test/env"
)

// victim asks for the test that is killed by the next one.
const victim = "ZT_ENV_VICTIM"

// TestVictim starts everything, prints what runs, and waits for its death.
func TestVictim(t *testing.T) {
	if os.Getenv(victim) == "" {
		t.Skip("only as a child of TestKilled")
	}
	cp, err := env.Start(t.Context(), env.Options{ControllerManager: true, StreamNode: true, Kwok: true})
	if err != nil {
		t.Fatal(err)
	}
	const pods = `
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: default}
spec: {containers: [{name: main, image: x, command: [sh, -c, "sleep 1001 & echo $! $$; wait"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: terminal, namespace: default}
spec: {containers: [{name: main, image: x, tty: true, command: [sh, -c, "echo $$; exec sleep 1002"]}]}
`
	if err := cp.Apply(t.Context(), pods); err != nil {
		t.Fatal(err)
	}
	member := exec.Command("sleep", "1000")
	if err := cp.Group().Start(member); err != nil {
		t.Fatal(err)
	}
	group, err := syscall.Getpgid(member.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	pids := processGroup(t, group)
	for _, pod := range []string{"plain", "terminal"} {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			out, _, err := cp.Kubectl(t.Context(), "logs", pod)
			if err == nil && strings.HasSuffix(out, "\n") {
				pids = append(pids, strings.Fields(out)...)
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	func() {
		dropped, err := env.NewGroup()
		if err != nil {
			t.Fatal(err)
		}
		member := exec.Command("sleep", "1004")
		if err := dropped.Start(member); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strconv.Itoa(member.Process.Pid))
	}()
	fmt.Println("dir", cp.Dir)
	fmt.Println("pids", strings.Join(pids, " "))
	// Nothing mentions cp from here on, nor the group; that must not end them.
	for range 3 {
		runtime.GC()
		time.Sleep(50 * time.Millisecond) // for finalizers that must not be there
	}
	fmt.Println("collected")
	_, _ = io.Copy(io.Discard, os.Stdin) // to the end of TestKilled, if that is killed
}

// TestKilled kills a test process with SIGKILL and sees everything that it
// started end: etcd, API server, controller manager, kwok, commands of pods, their
// children, and what has a terminal and so a session of its own.
func TestKilled(t *testing.T) {
	t.Parallel()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictim$")
	child.Env = append(os.Environ(), victim+"=1")
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []string
	var dir string
	for lines, last := bufio.NewScanner(out), false; !last && lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), " ")
		switch key {
		case "dir":
			dir = value
		case "pids":
			pids = strings.Fields(value)
		case "collected":
			last = true
		default:
			t.Log(lines.Text())
		}
	}
	const parts = 4 + 1 + 1 + 3 + 1 // programs, leader, sleep, pods, dropped group
	if len(pids) < parts {
		t.Errorf("%v were seen running, want at least %d", pids, parts)
	}
	for _, pid := range pids {
		if name, ok := running(pid); !ok {
			t.Errorf("%s %s ended before its time", pid, name)
		}
	}
	if locked, err := flock.New(filepath.Join(dir, "lock")).TryLock(); locked || err != nil {
		t.Errorf("the directory is not locked (%v)", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = child.Wait()
	t.Logf("killed; expected to follow: %v", pids)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		alive := ""
		for _, pid := range pids {
			if name, ok := running(pid); ok {
				alive += " " + pid + " " + name
			}
		}
		if alive == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there:%s", alive)
		}
	}

	// The next control plane of this machine clears up what was left; that may be
	// another test's, just now.
	cp, err := env.Start(t.Context(), env.Options{APIServerArgs: []string{"--no-such-flag"}})
	if err == nil {
		_ = cp.Stop()
	}
	eventually(t, dir+" is gone", func() bool { _, err := os.Stat(dir); return errors.Is(err, os.ErrNotExist) })
}

// running reads the state of a process: a zombie has ended, its new parent is just
// not in a hurry.
func running(pid string) (name string, ok bool) {
	name, fields := stat(pid)
	return name, fields != nil && fields[0] != "Z" && fields[0] != "X"
}

// stat returns the command of a process and the fields after it.
func stat(pid string) (name string, fields []string) {
	content, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return "", nil
	}
	before, after, _ := strings.Cut(string(content), ") ")
	_, name, _ = strings.Cut(before, "(")
	return name, strings.Fields(after)
}

func processGroup(t *testing.T, group int) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		pid := filepath.Base(dir)
		if _, fields := stat(pid); len(fields) > 2 && fields[2] == strconv.Itoa(group) {
			pids = append(pids, pid)
		}
	}
	return pids
}
