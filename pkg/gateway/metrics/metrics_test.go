package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestBounded: what clients choose makes no series.
func TestBounded(t *testing.T) {
	t.Parallel()
	m := New()
	before := strings.Count(scrape(m), "\n")
	for i := range 10000 {
		m.Request("prod", fmt.Sprintf("verb-%d", i), 1000+i, time.Second, false)
	}
	if got := strings.Count(scrape(m), "\n") - before; got > 40 {
		t.Errorf("%d lines more", got)
	}
}

// TestNil: a room without metrics works.
func TestNil(t *testing.T) {
	t.Parallel()
	var m *Metrics
	m.Request("c", "get", 200, time.Second, false)
	m.Refused("kube", wire.ReasonLimit)
	m.InFlight("c", "read")(1)
	m.Stream("c", 1)
	m.StreamBytes("c", 1, 1)
	m.Connection("kube", "tunnel", 1)
	m.Cut("kube", wire.ReasonRevoked)
	m.WouldDeny("c")
	m.Panic("kube")
	m.Upstream("c", "dial")
	m.Reachable("c", true)
	m.Condition("cluster/c", "X", true)
	m.Token("control", "ok")
	m.KeyFetch("i", time.Now(), nil)
	m.AuditLost()
	m.Reload("objects", nil)
	m.Epoch(wire.Epoch{})
	m.Login("check", "")
	m.Issued("token")
	m.Handshake("tunnel", "refused")
	NewProbes(nil).Seen()
}

func TestCounts(t *testing.T) {
	t.Parallel()
	m := New()
	m.Request("prod", "get", 200, time.Millisecond, false)
	m.Request("prod", "watch", 200, time.Hour, true)
	m.Refused("kube", wire.ReasonPolicyDefault)
	m.InFlight("prod", "read")(2)
	m.KeyFetch("https://idp", time.Unix(1000, 0), nil)
	m.KeyFetch("https://idp", time.Unix(2000, 0), errors.New("down"))
	m.Login("check", "")
	m.Condition("cluster/prod", "RBACStale", true)
	m.Condition("cluster/prod", "RBACStale", false)
	text := scrape(m)
	for _, want := range []string{
		`zt_requests_total{cluster="prod",code="200",verb="get"} 1`,
		`zt_request_duration_seconds_count{cluster="prod",verb="get"} 1`,
		`zt_refusals_total{part="kube",reason="policy_default"} 1`,
		`zt_requests_in_flight{class="read",cluster="prod"} 2`,
		`zt_key_fetches_total{issuer="https://idp",result="error"} 1`,
		`zt_key_fetched_timestamp_seconds{issuer="https://idp"} 1000`,
		`zt_logins_total{result="ok",step="check"} 1`,
		`zt_condition{condition="RBACStale",subject="cluster/prod"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, `duration_seconds_count{cluster="prod",verb="watch"}`) {
		t.Error("a watch's duration is counted")
	}
}

// TestProbes: a thousand health checks are one line.
func TestProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := New()
		p := NewProbes(m)
		var log strings.Builder
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Run(ctx, slog.New(slog.NewTextHandler(&log, nil)), time.Minute)
		}()
		for range 1000 {
			p.Seen()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * time.Minute)
		stop()
		<-done
		if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "count=1000") {
			t.Errorf("%d lines: %s", got, log.String())
		}
		if !strings.Contains(scrape(m), "zt_empty_connections_total 1000\n") {
			t.Error("not counted")
		}
	})
}
