package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/test/env/stack"
)

// cutReason is what the person at the laptop has to read.
const cutReason = "the laptop was lost"

// revoke revokes a laptop's device and returns when the gateway knows it.
func revoke(t *testing.T, s *stack.Stack, l *stack.Laptop) time.Time {
	t.Helper()
	id, err := l.DeviceID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf("apiVersion: kube-zt.io/v1alpha1\nkind: Revocation\nmetadata: {name: lost-%[1]s}\nspec: {device: %[1]s, reason: %[2]s}\n", id, cutReason)
	if err := s.WriteManifest("lost-"+id+".yaml", manifest); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// spoke is when it last printed.
func (s *screen) spoke() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// numbers writes numbered lines for ever and remembers when it wrote which.
type numbers struct {
	mu   sync.Mutex
	sent []time.Time
}

func (n *numbers) write(to io.Writer) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		n.mu.Lock()
		n.sent = append(n.sent, time.Now())
		line := fmt.Sprintf("%08d\n", len(n.sent))
		n.mu.Unlock()
		if _, err := io.WriteString(to, line); err != nil {
			return
		}
	}
}

// at is when a line was written; lines count from 1.
func (n *numbers) at(line int) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[line-1]
}

// A revocation during exec: kubectl ends within two seconds and says why, and of
// the numbered lines on its input none that was typed after the cut has come to
// the pod.
func TestRevokedExecReceivesNothingMore(t *testing.T) {
	t.Parallel()
	s := world(t)
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			carol := admin(t, s)
			g := newStreams(t, s, carol, transport.kubectl, transport.upgrade)
			g.pod(t, "idle", corev1.Container{})
			arrived := filepath.Join(t.TempDir(), "arrived")
			p := g.start(t, "exec", "-i", "idle", "--", "sh", "-c", "exec cat >"+arrived)
			var n numbers
			var writing sync.WaitGroup
			writing.Go(func() { n.write(p.stdin) })
			t.Cleanup(func() { _ = p.stdin.Close(); writing.Wait() })
			eventually(t, 20*time.Second, "lines arrive", func() bool { return size(arrived) > 900 })

			revoked := revoke(t, s, carol)
			code := p.end(t, 10*time.Second)
			if took := p.endedAt.Sub(revoked); took > cutWithin {
				t.Errorf("kubectl ended %v after the revocation", took)
			}
			t.Logf("exit %d after %v:\n%s", code, p.endedAt.Sub(revoked).Round(time.Millisecond), p.stderr.String())
			if code == 0 {
				t.Error("kubectl says that all was well")
			}
			wantIn(t, p.stderr.String(), cutReason)

			cut := outcome(t, s, g.namespace, "exec")
			wantIn(t, cut.Message, cutReason)
			last := lastNumber(t, arrived)
			if typed := n.at(last); typed.After(cut.Time) {
				t.Errorf("line %d was typed %v after the cut and arrived", last, typed.Sub(cut.Time))
			}
			eventually(t, 5*time.Second, "the command has ended with its stream", func() bool { return !openByAnybody(arrived) })
			if after := lastNumber(t, arrived); after != last {
				t.Errorf("lines up to %d arrived after kubectl had ended, %d before", after, last)
			}
		})
	}
}

func size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lastNumber demands that a file holds the numbers from 1 on, none missing, none
// twice, and returns the last whole one.
func lastNumber(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for i, line := range lines[:len(lines)-1] {
		if n, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err != nil || n != i+1 {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	return len(lines) - 1
}

// openByAnybody reports whether a process has the file open.
func openByAnybody(name string) bool {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/1")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == name {
			return true
		}
	}
	return false
}

// outcome waits for the gateway's record of a stream's end.
func outcome(t *testing.T, s *stack.Stack, namespace, subresource string) (found audit.Record) {
	t.Helper()
	eventually(t, 5*time.Second, "the gateway has recorded the end of "+subresource, func() bool {
		for _, r := range gatewayAudit(t, s) {
			if r.Kind == audit.KindOutcome && r.Namespace == namespace && r.Subresource == subresource && r.Reason != "" {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// A revocation during the other streams: each ends within two seconds, and where
// the protocol has a place for it the person reads why.
func TestRevokedStreamsSayWhy(t *testing.T) {
	t.Parallel()
	s := world(t)
	for _, test := range []struct {
		name, kubectl, upgrade string
		args                   []string
		first                  string // line of output by which it runs
		says                   string // "" where the protocol has no place for it
		code                   int
	}{
		// A watch's Status event is printed as if it were an object, and kubectl
		// ends with 0 whatever it says.
		{"watch", "kubectl", overWebSocket, []string{"get", "pods", "-w", "-o", "json"}, `    "kind": "Pod",`, cutReason, 0},
		{"watch 1.32", "kubectl-1.32", overWebSocket, []string{"get", "pods", "-w", "-o", "json"}, `    "kind": "Pod",`, cutReason, 0},
		{"watch 1.27", "kubectl-1.27", overSPDY, []string{"get", "pods", "-w", "-o", "json"}, `    "kind": "Pod",`, cutReason, 0},
		{"watch as a table", "kubectl", overWebSocket, []string{"get", "pods", "-w", "--no-headers", "-o", "custom-columns=N:.metadata.name,M:.message"}, "talker   <none>", cutReason, 0},
		{"logs", "kubectl", overWebSocket, []string{"logs", "-f", "talker"}, "tick", "", 1},
		{"logs 1.27", "kubectl-1.27", overSPDY, []string{"logs", "-f", "talker"}, "tick", "", 1},
		{"attach websocket", "kubectl", overWebSocket, []string{"attach", "talker"}, "tick", cutReason, 1},
		{"attach spdy", "kubectl", overSPDY, []string{"attach", "talker"}, "tick", cutReason, 1},
		{"exec output websocket", "kubectl", overWebSocket, []string{"exec", "talker", "--", "sh", "-c", "echo tick; yes tock"}, "tick", cutReason, 1},
		{"exec output spdy", "kubectl", overSPDY, []string{"exec", "talker", "--", "sh", "-c", "echo tick; yes tock"}, "tick", cutReason, 1},
		{"exec silent websocket", "kubectl", overWebSocket, []string{"exec", "talker", "--", "sh", "-c", "echo tick; sleep 1000"}, "tick", cutReason, 1},
		{"exec silent spdy", "kubectl", overSPDY, []string{"exec", "talker", "--", "sh", "-c", "echo tick; sleep 1000"}, "tick", cutReason, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			carol := admin(t, s)
			g := newStreams(t, s, carol, test.kubectl, test.upgrade)
			g.pod(t, "talker", corev1.Container{Command: []string{"sh", "-c", "while :; do echo tick; sleep 0.1; done"}})
			p := g.start(t, test.args...)
			p.want(t, test.first)
			revoked := revoke(t, s, carol)
			code := p.end(t, 10*time.Second)
			late := p.endedAt.Sub(revoked)
			out := p.stdout.String()
			t.Logf("exit %d after %v:\n%s\nstdout: %s", code, late.Round(time.Millisecond), p.stderr.String(), out[max(0, len(out)-200):])
			if late > cutWithin {
				t.Errorf("kubectl ended %v after the revocation", late)
			}
			if spoke := p.stdout.spoke().Sub(revoked); spoke > cutWithin {
				t.Errorf("it spoke %v after the revocation", spoke)
			}
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if text := out + p.stderr.String(); !strings.Contains(text, test.says) {
				t.Errorf("want %q in:\n%s", test.says, lastLines(text, 20))
			}
		})
	}
	for _, transport := range transports[:2] {
		t.Run("port-forward "+transport.name, func(t *testing.T) {
			t.Parallel()
			carol := admin(t, s)
			g := newStreams(t, s, carol, transport.kubectl, transport.upgrade)
			g.pod(t, "idle", corev1.Container{})
			var mu sync.Mutex
			var arrived time.Time // of the last byte
			p, conn := g.forward(t, serve(t, func(c *net.TCPConn) {
				b := make([]byte, 1<<10)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					mu.Lock()
					arrived = time.Now()
					mu.Unlock()
				}
			}))
			var n numbers
			var writing sync.WaitGroup
			writing.Go(func() { n.write(conn) })
			t.Cleanup(func() { _ = conn.Close(); writing.Wait() })
			eventually(t, 10*time.Second, "bytes arrive", func() bool { mu.Lock(); defer mu.Unlock(); return !arrived.IsZero() })

			revoked := revoke(t, s, carol)
			if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %q, %v", b, err)
			}
			if took := time.Since(revoked); took > cutWithin {
				t.Errorf("the connection ended %v after the revocation", took)
			}
			code := p.end(t, 10*time.Second)
			t.Logf("exit %d after %v:\n%s", code, p.endedAt.Sub(revoked).Round(time.Millisecond), p.stderr.String())
			cut := outcome(t, s, g.namespace, "portforward")
			wantIn(t, cut.Message, cutReason)
			mu.Lock()
			defer mu.Unlock()
			if arrived.After(cut.Time) {
				t.Errorf("bytes arrived %v after the cut", arrived.Sub(cut.Time))
			}
		})
	}
}
