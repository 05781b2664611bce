package e2e

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// statuses counts the HTTP status codes that a client-go program saw.
type statuses struct {
	mu     sync.Mutex
	counts map[int]int
}

func (s *statuses) wrap(rt http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := rt.RoundTrip(r)
		if err == nil {
			s.mu.Lock()
			s.counts[resp.StatusCode]++
			s.mu.Unlock()
		}
		return resp, err
	})
}

func (s *statuses) of(code int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[code]
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// program is a client-go program on the laptop: it reads the laptop's
// kubeconfig and runs its exec plugin, as k9s or a controller does.
func program(t *testing.T, l *stack.Laptop) (*kubernetes.Clientset, *rest.Config, *statuses) {
	t.Helper()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: l.Kubeconfig},
		&clientcmd.ConfigOverrides{CurrentContext: stack.Cluster}).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range l.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		config.ExecProvider.Env = append(config.ExecProvider.Env, clientcmdapi.ExecEnvVar{Name: name, Value: value})
	}
	seen := &statuses{counts: map[int]int{}}
	config.Wrap(seen.wrap)
	config.QPS, config.Burst = -1, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, config, seen
}

// A watch of a typed client, in JSON and in protobuf, is told why it ends: the
// program sees a Status and no broken connection.
func TestWatchIsToldWhy(t *testing.T) {
	t.Parallel()
	for _, form := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			s := own(t, stack.Options{}, idp.Options{})
			carol := admin(t, s)
			_, config, _ := program(t, carol)
			config.ContentType, config.AcceptContentTypes = form, form
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			watch, err := client.CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Stop()
			if first := <-watch.ResultChan(); first.Type != "ADDED" {
				t.Fatalf("%s %v", first.Type, first.Object)
			}
			revoke(t, s, carol)
			for event := range watch.ResultChan() {
				if event.Type != "ERROR" {
					continue
				}
				if err := apierrors.FromObject(event.Object); !strings.Contains(err.Error(), cutReason) {
					t.Errorf("told %v, want %q", err, cutReason)
				}
				return
			}
			t.Error("the watch ended without a word")
		})
	}
}
