package gateway

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestAuthorityRenewed: a cluster whose authority's file says something else is
// reached by the new one; a file that only was written again, or that is no
// authority, ends nothing.
func TestAuthorityRenewed(t *testing.T) {
	t.Parallel()
	w := newWhole(t, time.Second, nil)
	right, wrong := string(w.upstream.caPEM()), string(w.idp.CAPEM())
	running := func() *Kube {
		w.clusters.mu.Lock()
		defer w.clusters.mu.Unlock()
		return w.clusters.running["prod"].kube
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	answers := func() bool {
		response, err := w.get(w.kubectl(), "/api/v1/namespaces/dev/pods")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	const stale = `zt_condition{condition="Stale",subject="cluster/prod"}`
	first := running()

	w.file("upstream.crt", right)
	if w.clusters.renewed(t.Context()) {
		t.Error("the same content is nothing new")
	}
	w.file("upstream.crt", "no authority")
	must(t, w.Reload(t.Context()))
	until("the fault is told", func() bool { return series(w.Gateway, stale) == "1" })
	if running() != first || !answers() {
		t.Error("the cluster ended for a file that is no authority")
	}
	w.file("upstream.crt", right)
	must(t, w.Reload(t.Context()))
	until("the fault is over", func() bool { return series(w.Gateway, stale) == "0" })
	if running() != first {
		t.Error("the cluster ended although its authority came back")
	}

	// By the watch alone.
	w.file("upstream.crt", wrong)
	until("the other authority is used", func() bool { return running() != first && !answers() })
	w.file("upstream.crt", right)
	until("the right authority is used again", answers)
}

// TestIssuerAuthorityChanged: it waits for the next start, and a condition says so.
func TestIssuerAuthorityChanged(t *testing.T) {
	t.Parallel()
	log, lines := logged()
	w := newWhole(t, time.Second, func(_ *whole, c *Config) { c.Logger = log })
	const (
		restart = `zt_condition{condition="RestartNeeded",subject="issuer authority"}`
		stale   = `zt_condition{condition="Stale",subject="issuer authority"}`
	)
	for _, tt := range []struct{ content, restart, stale string }{
		{string(w.upstream.caPEM()), "1", "0"},
		{"none", "1", "1"},
		{string(w.idp.CAPEM()), "0", "0"},
	} {
		w.file("idp.crt", tt.content)
		if err := w.Reload(t.Context()); (err != nil) != (tt.stale == "1") {
			t.Error(err)
		}
		if got := series(w.Gateway, restart); got != tt.restart {
			t.Errorf("%.30q: RestartNeeded is %q, want %q; %s", tt.content, got, tt.restart, lines())
		}
		if got := series(w.Gateway, stale); got != tt.stale {
			t.Errorf("%.30q: Stale is %q, want %q", tt.content, got, tt.stale)
		}
	}
}

// TestUnusableSettings: when a cluster's object leads elsewhere and cannot be
// used, nobody is served on the old way, what lives there ends, and the way is
// tried again until it works.
func TestUnusableSettings(t *testing.T) {
	t.Parallel()
	w := newWhole(t, time.Second, nil)
	asked := make(chan struct{}, 100)
	w.upstream.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			io.WriteString(rw, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}`+"\n")
			http.NewResponseController(rw).Flush()
			<-r.Context().Done()
			return
		}
		asked <- struct{}{}
		io.WriteString(rw, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
	})
	kept := w.kubectl()
	ask := func(client *http.Client) (int, string) {
		t.Helper()
		response, err := w.get(client, "/api/v1/namespaces/dev/pods")
		if err != nil {
			return 0, err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	if code, body := ask(kept); code != http.StatusOK {
		t.Fatal(code, body)
	}
	watch, err := w.get(kept, "/api/v1/namespaces/dev/pods?watch=1")
	must(t, err)
	defer watch.Body.Close()
	<-asked

	w.file("new.crt", "no authority yet")
	objects, err := os.ReadFile(filepath.Join(w.dir, "config", "objects.yaml"))
	must(t, err)
	w.file("config/objects.yaml", strings.Replace(string(objects), "upstream.crt", "new.crt", 1))
	defer time.AfterFunc(10*time.Second, func() { watch.Body.Close() }).Stop()
	rest, err := io.ReadAll(watch.Body)
	if !strings.Contains(string(rest), "settings have changed") {
		t.Errorf("the watch was told %q (%v), want why it ends", rest, err)
	}
	if code, body := ask(kept); code != http.StatusServiceUnavailable || !strings.Contains(body, "settings have changed") {
		t.Errorf("on the connection that was there: %d %s", code, body)
	}
	if code, body := ask(w.kubectl()); code != 0 || !strings.Contains(body, "cannot be reached") {
		t.Errorf("on a new one: %d %s", code, body)
	}
	if len(asked) > 0 {
		t.Error("the old way is used")
	}
	if w.clusters.reachable("prod") {
		t.Error("the cluster is called reachable")
	}

	// The file comes at last, and nothing else changes.
	w.file("new.crt", string(w.upstream.caPEM()))
	for end := time.Now().Add(firstRetry + 10*time.Second); ; time.Sleep(20 * time.Millisecond) {
		code, body := ask(w.kubectl())
		if code == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the new settings are never used: ", code, body)
		}
	}
}

// TestV200Clusters: of several clusters one whose settings cannot be used is named,
// and is as it was; the others are as they are to be, none half.
func TestV200Clusters(t *testing.T) {
	t.Parallel()
	cluster := func(name, url string) *v1alpha1.TargetCluster {
		return &v1alpha1.TargetCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.TargetClusterSpec{URL: url}}
	}
	type state = map[wire.ClusterName]string
	fault := errors.New("no such address")
	c := &clusters{log: slog.New(slog.DiscardHandler), metrics: metrics.New()}
	urls := map[*Kube]string{}
	c.make = func(cluster *v1alpha1.TargetCluster) (*Kube, error) {
		if cluster.Spec.URL == "bad" {
			return nil, fault
		}
		k := &Kube{name: wire.ClusterName(cluster.Name)}
		urls[k] = cluster.Spec.URL
		return k, nil
	}
	for _, step := range []struct {
		what   string
		want   state
		faulty string // the cluster that the error names
		get    state
	}{
		{"the first", state{"a": "1", "b": "1", "c": "1"}, "", state{"a": "1", "b": "1", "c": "1"}},
		{"a fault, a change, one gone, a new one", state{"a": "bad", "b": "2", "d": "1"}, "a", state{"a": "1", "b": "2", "d": "1"}},
		{"the same again", state{"a": "bad", "b": "2", "d": "1"}, "a", state{"a": "1", "b": "2", "d": "1"}},
		{"a new one with a fault", state{"a": "3", "b": "2", "d": "1", "e": "bad"}, "e", state{"a": "3", "b": "2", "d": "1"}},
		{"none", state{}, "", state{}},
	} {
		want := map[wire.ClusterName]*v1alpha1.TargetCluster{}
		for name, url := range step.want {
			want[name] = cluster(string(name), url)
		}
		before := maps.Clone(c.running)
		err := c.sync(t.Context(), want)
		if step.faulty == "" && err != nil || step.faulty != "" && (!errors.Is(err, fault) || !strings.Contains(err.Error(), strconv.Quote(step.faulty))) {
			t.Errorf("%s: %v", step.what, err)
		}
		made := state{} // what runs leads where
		for name, r := range c.running {
			made[name] = urls[r.kube]
			if old := before[name]; old != nil && urls[old.kube] == made[name] && old != r {
				t.Errorf("%s: %s was replaced by its like", step.what, name)
			}
			backend, ok := c.backend(name).(*Kube)
			if !ok || backend != r.kube {
				t.Errorf("%s: %s is not what serves", step.what, name)
			}
		}
		if diff := cmp.Diff(step.get, made); diff != "" {
			t.Errorf("%s: %s", step.what, diff)
		}
		for name := range step.want {
			stale, want := series(&Gateway{metrics: c.metrics}, `zt_condition{condition="Stale",subject="cluster/`+string(name)+`"}`), "0"
			if string(name) == step.faulty {
				want = "1"
			}
			if stale != want {
				t.Errorf("%s: %s is stale: %q, want %s", step.what, name, stale, want)
			}
		}
	}
}

// TestSameUpstream: every field either makes another way to the cluster or is
// known to be asked for anew at every request.
func TestSameUpstream(t *testing.T) {
	t.Parallel()
	anew := map[string]bool{
		"DisplayName": true, "Description": true, "Link": true, "Hidden": true, "Autorun": true,
		"Access": true, "Direct": true, "Enforcement": true, "ListenPort": true, "ListenPortFixed": true,
	}
	var a v1alpha1.TargetCluster
	spec := reflect.TypeFor[v1alpha1.TargetClusterSpec]()
	for i := range spec.NumField() {
		field := spec.Field(i)
		var b v1alpha1.TargetCluster
		switch v := reflect.ValueOf(&b.Spec).Elem().Field(i); v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int32:
			v.SetInt(1)
		case reflect.Struct:
			v.Field(0).SetString("x")
		default:
			t.Fatalf("%s: %v", field.Name, v.Kind())
		}
		if got := SameUpstream(&a, &b); got != anew[field.Name] {
			t.Errorf("with another %s it is the same way: %v", field.Name, got)
		}
	}
	if SameUpstream(&a, &v1alpha1.TargetCluster{ObjectMeta: metav1.ObjectMeta{Name: "other"}}) {
		t.Error("another cluster is the same way")
	}
}
