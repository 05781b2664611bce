package env

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

var shared struct {
	sync.Mutex
	cp  *ControlPlane
	err error
}

// Shared returns the control plane of this test binary, with all parts, and
// starts it for the first caller. Tests that run beside each other use namespaces
// and names of their own.
func Shared(t testing.TB) *ControlPlane {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cp == nil && shared.err == nil {
		// Not t's context: the control plane outlives the test that came first.
		shared.cp, shared.err = Start(context.WithoutCancel(t.Context()), Options{ControllerManager: true, StreamNode: true, Kwok: true})
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cp
}

// Main runs the tests and stops the shared control plane, if any test wanted it.
// It returns the exit code for os.Exit.
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.cp != nil {
		if err := shared.cp.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		shared.cp = nil
	}
	return code
}
