package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// V197: asked to end, the gateway is not ready first, what is short ends well,
// what is long is told why and closed at the limit, and nothing is left.
func TestV197(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	w := newWhole(t, limit, nil)
	release, began := make(chan struct{}), make(chan struct{}, 64)
	w.upstream.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			io.WriteString(rw, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}`+"\n")
			http.NewResponseController(rw).Flush()
			<-r.Context().Done()
			return
		}
		began <- struct{}{}
		<-release
		io.WriteString(rw, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
	})
	client := w.kubectl()
	if got := w.ready(); got != http.StatusOK {
		t.Fatalf("ready: %d", got)
	}
	watch, err := w.get(client, "/api/v1/namespaces/default/pods?watch=1")
	must(t, err)
	defer watch.Body.Close()
	lines := bufio.NewReader(watch.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}

	const short = 40
	var failed sync.Map
	var running sync.WaitGroup
	for i := range short {
		running.Go(func() {
			response, err := w.get(client, "/api/v1/namespaces/default/pods")
			if err != nil {
				failed.Store(i, err)
				return
			}
			defer response.Body.Close()
			if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), "PodList") {
				failed.Store(i, fmt.Errorf("%d %s %v", response.StatusCode, body, err))
			}
		})
	}
	for range short {
		<-began
	}

	asked := time.Now()
	w.stop()
	deadline := time.Now().Add(2 * time.Second)
	for w.ready() == http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("still ready")
		}
		time.Sleep(time.Millisecond)
	}
	close(release) // the short ones end while the gateway drains
	running.Wait()
	failed.Range(func(i, err any) bool {
		t.Errorf("short request %v: %v", i, err)
		return true
	})
	if time.Since(asked) > limit {
		t.Error("the short ones had to wait for the limit")
	}
	rest, err := io.ReadAll(lines)
	if took := time.Since(asked); took < limit/2 || took > limit+edgeGrace {
		t.Errorf("the watch ended after %v, want about %v (%v)", took, limit, err)
	}
	if !strings.Contains(string(rest), "shutting down") {
		t.Errorf("the watch was told %q (%v), want why", rest, err)
	}
	select {
	case err := <-w.ended:
		w.ended <- nil
		must(t, err)
	case <-time.After(limit + 2*edgeGrace):
		t.Fatal("the gateway does not end")
	}
	if _, err := net.DialTimeout("tcp", w.Address().String(), time.Second); err == nil {
		t.Error("the listener is open")
	}
}

// V197: what begins when the gateway is not ready any more, and nobody has seen
// that yet, is served as ever: on a connection that is there, and on new ones.
func TestV197NotSeenYet(t *testing.T) {
	t.Parallel()
	w := newWhole(t, 20*time.Second, func(_ *whole, c *Config) {
		c.Configuration.Shutdown.Delay = &metav1.Duration{Duration: 2 * time.Second}
	})
	w.upstream.handle(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		io.WriteString(rw, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
	})
	kept := w.kubectl()
	ask := func(client *http.Client, how string) {
		t.Helper()
		response, err := w.get(client, "/api/v1/namespaces/default/pods")
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", how, response.StatusCode, body, err)
		}
	}
	ask(kept, "before")
	w.stop()
	for w.ready() == http.StatusOK {
		time.Sleep(time.Millisecond)
	}
	for range 10 {
		ask(kept, "on the connection that is there")
		ask(w.kubectl(), "on a new one")
	}
	select {
	case err := <-w.ended:
		w.ended <- nil
		must(t, err)
	case <-time.After(15 * time.Second):
		t.Fatal("nothing runs, and the gateway does not end")
	}
}
