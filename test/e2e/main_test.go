// Package e2e tries zt as people use it: stock kubectl, kubectl-zt and
// zt-gateway as they are shipped, a real kube-apiserver, a real identity
// provider. What can be proven in one room is proven there; what stands here
// needs the whole.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/test/env"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

func TestMain(m *testing.M) {
	code := env.Main(m)
	if err := shared.nothingLeft(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	shared.close()
	stack.RemovePrograms()
	os.Exit(code)
}

// sharedStack is one running zt that tests share unless they change it.
type sharedStack struct {
	once  sync.Once
	stack *stack.Stack
	idp   *idp.Provider
	began usage // before anybody used it
	err   error
}

// usage is what the gateway process holds.
type usage struct{ goroutines, files int }

func (s *sharedStack) usage() (u usage, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, text, err := s.stack.Admin(ctx, "/metrics")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(text) {
		_, _ = fmt.Sscanf(line, "go_goroutines %d", &u.goroutines)
		_, _ = fmt.Sscanf(line, "process_open_fds %d", &u.files)
	}
	if u.goroutines == 0 || u.files == 0 && runtime.GOOS == "linux" {
		return u, errors.New("the metrics do not say how many goroutines and open files there are")
	}
	return u, nil
}

// nothingLeft demands that the gateway's goroutines and descriptors are back to
// what they were, whatever the tests did to it: NL of V133 and V140 among others.
// A stream that has ended may take half a minute to be read to its end.
func (s *sharedStack) nothingLeft() error {
	if s.stack == nil || s.err != nil || runtime.GOOS != "linux" {
		return nil
	}
	// A few of each belong to the warm connections upstream.
	most := usage{s.began.goroutines + 20, s.began.files + 8}
	for deadline := time.Now().Add(45 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now, err := s.usage()
		if err != nil {
			return fmt.Errorf("what the gateway holds after all tests: %w", err)
		}
		if now.goroutines <= most.goroutines && now.files <= most.files {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after all tests the gateway has %d goroutines and %d open files, before them it had %d and %d",
				now.goroutines, now.files, s.began.goroutines, s.began.files)
		}
	}
}

var shared sharedStack

func (s *sharedStack) close() {
	if s.stack != nil {
		s.stack.Close()
	}
	if s.idp != nil {
		_ = s.idp.Close()
	}
}

// world returns the shared stack with its control plane.
func world(t *testing.T) *stack.Stack {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the control plane")
	}
	cp := env.Shared(t)
	shared.once.Do(func() {
		if shared.idp, shared.err = idp.Start(context.Background(), idp.Options{}); shared.err != nil {
			return
		}
		shared.stack, shared.err = stack.Start(context.Background(), stack.Options{ControlPlane: cp, IdP: shared.idp, Log: os.Stderr})
		if shared.err == nil {
			shared.began, shared.err = shared.usage()
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.stack
}

// own returns a stack of the test's own on the shared control plane.
func own(t *testing.T, o stack.Options, p idp.Options) *stack.Stack {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the control plane")
	}
	o.ControlPlane = env.Shared(t)
	provider, err := idp.Start(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	o.IdP = provider
	o.Log = os.Stderr
	s, err := stack.Start(t.Context(), o)
	if err != nil {
		_ = provider.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("gateway:\n%s", lastLines(s.Gateway.Logs(), 40))
		}
		s.Close()
		_ = provider.Close()
	})
	return s
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// laptop makes a laptop that ends with the test.
func laptop(t *testing.T, s *stack.Stack, user string) *stack.Laptop {
	t.Helper()
	l, err := s.Laptop(user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, err := os.ReadFile(filepath.Join(l.Home, "run", "zt", "agent.log"))
			t.Logf("agent.log of %s (%v):\n%s", user, err, lastLines(string(text), 40))
		}
		l.Close()
	})
	return l
}

// connected is a laptop whose kubeconfig holds the cluster.
func connected(t *testing.T, s *stack.Stack, user string) *stack.Laptop {
	t.Helper()
	l := laptop(t, s, user)
	if err := l.Connect(t.Context(), stack.Cluster); err != nil {
		t.Fatal(err)
	}
	return l
}

// admin is carol on a corporate device that was approved.
func admin(t *testing.T, s *stack.Stack) *stack.Laptop {
	t.Helper()
	l := laptop(t, s, "carol")
	if err := l.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.ApproveDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := l.ZT(t.Context(), "connect", stack.Cluster); res.Code != 0 {
		t.Fatalf("connect: %v", res)
	}
	return l
}

// eventually polls cond until it holds; it fails the test after within.
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func wantIn(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("want %q in:\n%s", part, text)
	}
}
