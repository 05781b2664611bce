package edge

import (
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/wire"
)

// endsWithin reads until the stream's end and says whether that was in time.
func endsWithin(t *testing.T, what string, s *h2conn.Stream, limit time.Duration) {
	t.Helper()
	began := time.Now()
	s.SetReadDeadline(began.Add(patience))
	_, err := io.Copy(io.Discard, s)
	if took := time.Since(began); took > limit || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s ended after %v (%v), want %v", what, took, err, limit)
	}
}

func alive(t *testing.T, what string, s *h2conn.Stream) {
	t.Helper()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	s.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func (r *rig) apply(specs ...v1alpha1.RevocationSpec) {
	var list []*v1alpha1.Revocation
	for _, spec := range specs {
		spec.At = metav1.NewTime(r.clock.Now())
		list = append(list, &v1alpha1.Revocation{Spec: spec})
	}
	r.registry.Apply(list, wire.Epoch{Generation: 1, Sequence: uint64(len(list))})
}

func TestRevocationCutsExactlyWhatItNames(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) {
		every := o.Control
		o.Cluster = func(wire.ClusterName) Backend { return every }
	})
	alice, bob := r.device("alice", time.Hour), r.device("bob", time.Hour)
	a, b := r.connection(alice), r.connection(bob)
	prodA, devA, controlA := connect(t, a, "prod.zt.test:443"), connect(t, a, "dev.zt.test:443"), connect(t, a, "control:443")
	prodB := connect(t, b, "prod.zt.test:443")
	for _, s := range []*h2conn.Stream{prodA, devA, controlA, prodB} {
		accepted(t, s)
	}

	cluster := v1alpha1.RevocationSpec{Cluster: "dev", Reason: "maintenance"}
	r.apply(cluster)
	endsWithin(t, "the stream to the revoked cluster", devA, 2*time.Second)
	alive(t, "the stream to another cluster", prodA)
	if got := refusal(t, connect(t, a, "dev.zt.test:443")); got.Status != http.StatusForbidden {
		t.Errorf("a new stream to it: %d", got.Status)
	}

	r.apply(cluster, v1alpha1.RevocationSpec{User: "alice@example.com", Reason: "left the company"})
	endsWithin(t, "the person's stream", prodA, 2*time.Second)
	endsWithin(t, "the person's stream to control", controlA, 2*time.Second)
	select {
	case <-a.Done():
	case <-time.After(2 * time.Second):
		t.Error("the person's connection lives")
	}
	alive(t, "another person's stream", prodB)
	if got := r.metric(`zt_cuts_total{part="edge",reason="revoked"}`); got == "" || got == "0" {
		t.Errorf("cuts: %q", got)
	}
}

// Whoever is revoked while he opens a stream ends without one: register comes
// before check, so a race always ends dead.
func TestRevocationRacesWithConnect(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for range count(200) {
		d := r.device("alice", time.Hour)
		c := r.connection(d)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.apply(v1alpha1.RevocationSpec{Session: string(d.identity.Session)})
		}()
		s, err := c.Connect(t.Context(), "prod.zt.test:443", nil)
		<-done
		if err == nil {
			endsWithin(t, "the stream", s, 2*time.Second)
			s.Close()
		}
		select {
		case <-c.Done():
		case <-time.After(3 * time.Second):
			t.Fatal("the connection lives")
		}
	}
}

// A certificate that is shown to a connection which has just ended must not
// stay in the register: nobody would ever take it out.
func TestNothingIsRegisteredAfterTheEnd(t *testing.T) {
	t.Parallel()
	r := prepare(t, nil)
	tun := &tunnel{edge: r.Edge}
	first := r.device("alice", time.Hour)
	if refusal := tun.show(first.identity); refusal != nil {
		t.Fatal(refusal)
	}
	if n := len(r.registry.Live()); n != 1 {
		t.Fatalf("%d registered, want 1", n)
	}
	tun.close()
	if refusal := tun.show(first.identity); refusal == nil {
		t.Error("the end was not told")
	}
	if live := r.registry.Live(); len(live) != 0 {
		t.Errorf("registered for ever: %+v", live)
	}
}
