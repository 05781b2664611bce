package e2e

import (
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// soaking says whether the long and full-count forms run.
func soaking() bool { return os.Getenv("ZT_SOAK") != "" }

// A program that holds a watch and polls, as k9s does, lives through two
// renewals of the trust certificate and of its token: no 401, no broken watch,
// no second login (F3, DESIGN 2).
func TestRenewalNeverBreaksAClient(t *testing.T) {
	t.Parallel()
	const life = 2 * time.Minute
	s := own(t, stack.Options{Configure: func(c *v1alpha1.GatewayConfiguration) {
		c.Session.CertificateLifetime = metav1.Duration{Duration: life}
		c.Session.TokenLifetime = metav1.Duration{Duration: time.Minute}
	}}, idp.Options{IDTokenLife: life})
	l := admin(t, s)
	client, _, seen := program(t, l)
	opens := l.BrowserOpens()

	namespace := "renewal"
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	watch, err := client.CoreV1().ConfigMaps(namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()

	start := time.Now()
	polls := 0
	for time.Since(start) < life+10*time.Second { // renewals at half life: two of them
		if _, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatalf("poll after %v: %v", time.Since(start), err)
		}
		polls++
		select {
		case event, ok := <-watch.ResultChan():
			if !ok {
				t.Fatalf("the watch ended after %v", time.Since(start))
			}
			_ = event
		case <-time.After(500 * time.Millisecond):
		}
	}
	// The watch is not merely open: what happens now arrives on it.
	if _, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "after"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for found := false; !found; {
		select {
		case event, ok := <-watch.ResultChan():
			if !ok {
				t.Fatal("the watch ended")
			}
			if cm, isMap := event.Object.(*corev1.ConfigMap); isMap && cm.Name == "after" {
				found = true
			}
		case <-deadline:
			t.Fatal("the watch is deaf")
		}
	}
	if n := seen.of(http.StatusUnauthorized); n != 0 {
		t.Errorf("%d answers were 401 in %d polls", n, polls)
	}
	if n := l.BrowserOpens() - opens; n != 0 {
		t.Errorf("the browser was opened %d times", n)
	}
	if c := s.IdP.Counters(); c.Reuses != 0 || c.Refreshes < 2 {
		t.Errorf("refreshes %d, want 2 at least; reuses %d", c.Refreshes, c.Reuses)
	}
}
