package e2e

import (
	"bufio"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
	"github.com/kube-zt/zt/test/transcript"
)

const webPod = `apiVersion: v1
kind: Pod
metadata: {name: ticker, namespace: default}
spec:
  containers:
  - name: ticker
    image: demo
    command: [sh, -c, 'while true; do date +%s.%N; sleep 0.1; done']
`

// stream is a running kubectl whose output is counted.
type stream struct {
	args   []string
	stderr transcript.Buffer
	ended  chan struct{}

	mu    sync.Mutex
	lines int
	last  time.Time
}

func follow(t *testing.T, l *stack.Laptop, args ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	cmd := l.Command(ctx, "kubectl", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{args: args, ended: make(chan struct{})}
	cmd.Stderr = &s.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			s.mu.Lock()
			s.lines++
			s.last = time.Now()
			s.mu.Unlock()
		}
		_ = cmd.Wait()
	}()
	return s
}

func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines
}

func (s *stream) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// V207: a revoked person's streams of every kind end within two seconds, other
// people's go on, and nothing new is issued.
func TestV207RevokedUserLosesEveryStream(t *testing.T) {
	t.Parallel()
	n, pause := 500/20, "0.1"
	if soaking() {
		n, pause = 500, "1" // each pause is a process of the pod's
	}
	const perLaptop = 60 // a kubectl opens up to three connections, and a laptop has 240
	s := own(t, stack.Options{}, idp.Options{})
	if err := s.ControlPlane.Apply(t.Context(), webPod); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ControlPlane.Kubectl(t.Context(), "wait", "--for=condition=Ready", "pod/ticker", "--timeout=60s"); err != nil {
		t.Fatal(err)
	}
	laptops := []*stack.Laptop{admin(t, s)}
	for len(laptops)*perLaptop < n {
		laptops = append(laptops, admin(t, s))
	}
	carol, alice := laptops[0], connected(t, s, "alice")

	kinds := [][]string{
		{"logs", "-f", "--tail=1", "ticker"},
		{"exec", "ticker", "--", "sh", "-c", "while true; do echo x; sleep " + pause + "; done"},
		{"get", "pods", "-w", "--output-watch-events"},
	}
	var doomed []*stream
	spared := follow(t, alice, "logs", "-f", "--tail=1", "ticker")
	// Not all at once: hundreds of kubectls that start are a load of their own.
	for begun := 0; begun < n; {
		for range min(25, n-begun) {
			doomed = append(doomed, follow(t, laptops[begun/perLaptop], kinds[begun%len(kinds)]...))
			begun++
		}
		eventually(t, time.Minute, "the streams run", func() bool {
			for i, d := range doomed {
				if d.count() == 0 && d.over() {
					t.Fatalf("stream %d, %v, did not begin: %s", i, d.args, &d.stderr)
				}
				if d.count() == 0 {
					return false
				}
			}
			return spared.count() > 0
		})
	}

	if err := s.WriteManifest("revocation.yaml", `apiVersion: kube-zt.io/v1alpha1
kind: Revocation
metadata: {name: carol-left}
spec: {user: carol@example.com, reason: left the company}
`); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	eventually(t, 10*time.Second, "all doomed streams end", func() bool {
		for _, d := range doomed {
			if !d.over() {
				return false
			}
		}
		return true
	})
	for i, d := range doomed {
		d.mu.Lock()
		if late := d.last.Sub(revoked); late > 2*time.Second {
			t.Errorf("stream %d (%v) spoke %v after the revocation", i, kinds[i%len(kinds)], late)
		}
		d.mu.Unlock()
	}
	before := spared.count()
	eventually(t, 5*time.Second, "the other person's stream goes on", func() bool { return spared.count() > before+5 })

	res := carol.Kubectl(t.Context(), "get", "pods")
	if res.Code == 0 {
		t.Errorf("carol still gets pods: %v", res)
	}
	wantIn(t, res.Stderr, "revoked")
	if err := carol.Login(t.Context()); err == nil {
		t.Error("carol logged in again")
	}
	// The file goes, the revocation stays.
	if err := s.RemoveManifest("revocation.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := carol.Kubectl(t.Context(), "get", "pods"); res.Code == 0 {
		t.Error("deleting the manifest lifted the revocation")
	}
}

// Logout ends what the session holds (F32, U20): afterwards the same kubeconfig
// is refused until the next login.
func TestLogout(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Fatalf("get pods: %v", res)
	}
	if res := alice.ZT(t.Context(), "logout"); res.Code != 0 {
		t.Fatalf("logout: %v", res)
	}
	if c := s.IdP.Counters(); c.Revocations == 0 {
		t.Error("the refresh token was not revoked at the identity provider")
	}
	alice.SetUser("") // nobody is at the screen: it must not just log in again
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if res := alice.Kubectl(ctx, "get", "pods"); res.Code == 0 {
		t.Errorf("still gets pods: %v", res)
	}
	alice.SetUser("alice")
	if err := alice.Connect(t.Context(), stack.Cluster); err != nil {
		t.Fatal(err)
	}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("after a new login: %v", res)
	}
}
