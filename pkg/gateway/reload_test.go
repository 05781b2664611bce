package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/gateway/metrics"
	"github.com/kube-zt/zt/test/idp"
)

// TestV200GatewayConfiguration: what can change while the gateway runs does, what
// cannot is named, and a fault changes nothing but the log and the metrics.
func TestV200GatewayConfiguration(t *testing.T) {
	t.Parallel()
	var next *v1alpha1.GatewayConfiguration
	var fault error
	log, lines := logged()
	w := newWhole(t, time.Second, func(w *whole, c *Config) {
		c.File = w.file("gateway.yaml", "first")
		c.Parse = func([]byte) (*v1alpha1.GatewayConfiguration, error) { return next, fault }
		c.Logger = log
	})
	const (
		reloads = `zt_reloads_total{result="error",source="configuration"}`
		stale   = `zt_condition{condition="Stale",subject="configuration"}`
		restart = `zt_condition{condition="RestartNeeded",subject="configuration"}`
	)
	old := w.c()

	fault = errors.New("gateway.yaml:3: unknown field")
	if err := w.Reload(t.Context()); err == nil || w.c() != old {
		t.Errorf("a faulty file: %v", err)
	}
	if series(w.Gateway, reloads) != "1" || series(w.Gateway, stale) != "1" {
		t.Errorf("reloads %q, stale %q", series(w.Gateway, reloads), series(w.Gateway, stale))
	}
	if !strings.Contains(lines(), "not loaded, the old one stays") || !strings.Contains(lines(), "gateway.yaml:3: unknown field") {
		t.Error(lines())
	}

	next, fault = old.DeepCopy(), nil
	next.Login.Enrolment, next.Session.TokenLifetime = v1alpha1.EnrolmentApproval, metav1.Duration{Duration: time.Minute}
	next.Domain = "elsewhere.example"
	must(t, w.Reload(t.Context()))
	if got := w.c(); got.Login.Enrolment != v1alpha1.EnrolmentApproval || got.Session.TokenLifetime.Duration != time.Minute || got.Domain != rigDomain {
		t.Errorf("in force: %+v", got)
	}
	if series(w.Gateway, stale) != "0" || series(w.Gateway, restart) != "1" {
		t.Errorf("stale %q, restart %q", series(w.Gateway, stale), series(w.Gateway, restart))
	}
	if code, text := w.checkDevice(w.gw(), newKey(t)); code != http.StatusForbidden {
		t.Errorf("an unknown device, although enrolment wants an approval now: %d %s", code, text)
	}

	next = next.DeepCopy()
	next.Domain = rigDomain
	must(t, w.Reload(t.Context()))
	if series(w.Gateway, restart) != "0" {
		t.Error("nothing waits any more")
	}
}

// TestConfigurationWrittenAtStart: what was written between the first reading and
// the first look is loaded at that look.
func TestConfigurationWrittenAtStart(t *testing.T) {
	t.Parallel()
	w, ctx := newUnstarted(t, time.Second, func(w *whole, c *Config) {
		c.File = w.file("gateway.yaml", "first")
		c.Print = files.Print(c.File)
		w.file("gateway.yaml", "second, longer")
		c.Parse = func(data []byte) (*v1alpha1.GatewayConfiguration, error) {
			next := c.Configuration.DeepCopy()
			next.Login.Enrolment = v1alpha1.EnrolmentMode(data)
			return next, nil
		}
	})
	t.Cleanup(w.Close)
	must(t, w.reloadFiles(ctx, true))
	if got := w.c().Login.Enrolment; got != "second, longer" {
		t.Errorf("in force: %q", got)
	}
}

// TestV201GatewayConfiguration: of a file that is cut and written again, piece by
// piece, only the whole is loaded, by notice of a change and by SIGHUP alike.
func TestV201GatewayConfiguration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	write := func(text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("first")
	// On the bubble's clock every file is of the future, so it counts as new.
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var loaded []string
		g := &Gateway{metrics: metrics.New(), log: slog.New(slog.DiscardHandler), clusters: &clusters{}}
		g.files.add("configuration", func(data [][]byte) error {
			mu.Lock()
			defer mu.Unlock()
			loaded = append(loaded, string(data[0]))
			return nil
		}, path)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { g.watchFiles(ctx) })
		pieces := func(text string) {
			for i := range len(text) { // every pause is shorter than what must be still
				write(text[:i])
				time.Sleep(files.Settle * 4 / 5)
			}
			write(text)
		}
		pieces("the second, which is written while somebody looks") // for several seconds
		time.Sleep(2 * filePeriod)
		cancel() // a bubble's clock stands while somebody waits for a mutex
		running.Wait()
		write("half")
		running.Go(func() { pieces("the third") })
		synctest.Wait()
		must(t, g.reloadFiles(t.Context(), false))
		running.Wait()
		want := []string{"the second, which is written while somebody looks", "the third"}
		if diff := cmp.Diff(want, loaded); diff != "" {
			t.Error(diff)
		}
	})
}

// logged collects log lines.
func logged() (*slog.Logger, func() string) {
	var mu sync.Mutex
	var b bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return b.Write(p) })
	return slog.New(slog.NewTextHandler(w, nil)), func() string { mu.Lock(); defer mu.Unlock(); return b.String() }
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestIssuersReload: a stream that a further issuer's token began ends when that
// issuer is no longer accepted.
func TestIssuersReload(t *testing.T) {
	t.Parallel()
	provider, further := furtherIssuer(t)
	r := newRig(t, rigOptions{manifests: corporate, direct: true, further: further})
	r.upstream.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		io.WriteString(rw, "{}\n")
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	client := &http.Client{Transport: &http.Transport{DialTLSContext: r.directDialer("h2"), ForceAttemptHTTP2: true}}
	token := provider.MintIDToken("alice", idp.Mint{Claims: map[string]any{"aud": "kubernetes"}})
	ask := func() *http.Response {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.kube.directHost+"/api/v1/pods?watch=1", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		must(t, err)
		t.Cleanup(func() { response.Body.Close() })
		return response
	}
	watch := ask()
	if _, err := bufio.NewReader(watch.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() {
		rest, _ := io.ReadAll(watch.Body)
		ended <- string(rest)
	}()

	must(t, further.Reload(furtherConfig(provider.Issuer()))) // the same: nothing happens
	if err := further.Reload([]byte("{}")); err == nil {
		t.Error("a faulty configuration was accepted")
	}
	select {
	case rest := <-ended:
		t.Fatalf("the watch ended although nothing has changed: %s", rest)
	case <-time.After(2 * sweepEvery):
	}
	must(t, further.Reload(furtherConfig("https://another.example")))
	select {
	case rest := <-ended:
		if !strings.Contains(rest, "have changed") {
			t.Errorf("the watch was told %q", rest)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the watch lives on")
	}
	if got := ask(); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token of the issuer that is gone: %d", got.StatusCode)
	}
}
