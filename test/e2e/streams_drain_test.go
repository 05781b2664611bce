package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// SIGTERM: no short request is cut; streams run to the drain limit and are told
// why they end; then the process is gone. The laptop goes on with the next
// gateway, without a login.
func TestDrainTellsStreams(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	s := own(t, stack.Options{Configure: func(c *v1alpha1.GatewayConfiguration) {
		c.Shutdown = v1alpha1.Shutdown{DrainTimeout: metav1.Duration{Duration: limit}, Delay: &metav1.Duration{Duration: limit / 4}}
	}}, idp.Options{})
	carol := admin(t, s)
	var running []*process
	g := newStreams(t, s, carol, "", "")
	g.pod(t, "idle", corev1.Container{})
	for _, transport := range transports {
		g.kubectl, g.upgrade = transport.kubectl, transport.upgrade
		p := g.start(t, "exec", "-i", "idle", "--", "sh", "-c", "echo runs; exec cat")
		p.want(t, "runs")
		running = append(running, p)
	}

	// Short requests come without a pause. None is cut: with another gateway
	// beside this one, each would be answered.
	client, _, _ := program(t, carol)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type request struct {
		began time.Time
		err   error
	}
	var mu sync.Mutex
	var asked []request
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for ctx.Err() == nil {
				r := request{began: time.Now()}
				_, r.err = client.CoreV1().Pods(g.namespace).List(ctx, metav1.ListOptions{})
				mu.Lock()
				asked = append(asked, r)
				mu.Unlock()
				if r.err != nil {
					return
				}
			}
		})
	}
	eventually(t, 10*time.Second, "short requests run", func() bool { mu.Lock(); defer mu.Unlock(); return len(asked) > 50 })

	signalled := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- s.StopGateway(t.Context()) }()
	if err := <-stopped; err != nil {
		t.Errorf("the gateway: %v", err)
	}
	t.Logf("the gateway ended %v after the signal", time.Since(signalled).Round(time.Millisecond))
	cancel()
	asking.Wait()

	answered := 0
	for _, r := range asked {
		switch {
		case r.err == nil:
			answered++
		case strings.Contains(r.err.Error(), "shutting down"), strings.Contains(r.err.Error(), "cannot be reached"):
			// It was not begun, or told in time to go elsewhere, which there is not.
		default:
			t.Errorf("a request that began %v after the signal was cut: %v", r.began.Sub(signalled), r.err)
		}
	}
	t.Logf("%d requests were answered, %d found no gateway", answered, len(asked)-answered)
	for i, p := range running {
		code := p.end(t, 10*time.Second)
		t.Logf("%s: exit %d, %v after the signal: %s", transports[i].name, code, p.endedAt.Sub(signalled).Round(time.Millisecond), lastLines(p.stderr.String(), 1))
		if code == 0 || !strings.Contains(p.stderr.String(), "shutting down") {
			t.Errorf("%s: exit %d: %s", transports[i].name, code, p.stderr.String())
		}
		if after := p.endedAt.Sub(signalled); after < limit || after > limit+cutWithin {
			t.Errorf("%s: ended %v after the signal, the limit is %v", transports[i].name, after, limit)
		}
	}

	if err := s.StartGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	opens := carol.BrowserOpens()
	if res := carol.Kubectl(t.Context(), "get", "pods", "-n", g.namespace); res.Code != 0 || carol.BrowserOpens() != opens {
		t.Errorf("with the next gateway, %d logins: %v", carol.BrowserOpens()-opens, res)
	}
}
