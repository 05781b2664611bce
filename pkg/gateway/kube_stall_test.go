package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// TestStalledAnswer: an answer that nobody reads holds its slot for as long as a
// request may take and no longer.
func TestStalledAnswer(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{requestTime: time.Second, limits: v1alpha1.Limits{ReadsInFlight: 2}})
			alice := r.person("alice@example.com")
			r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
				for q.URL.Query().Get("limit") != "" && q.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("x", 64<<10)); err != nil {
						return
					}
				}
			})
			response, err := alice.http(protocol).Do(alice.request(http.MethodGet, "/api/v1/pods?limit=500", nil))
			must(t, err)
			defer response.Body.Close()
			began := time.Now()
			other := alice.http("h2")
			get := func() int { return r.do(other, alice.request(http.MethodGet, "/api/v1/pods", nil)).code }
			if code := get(); code != http.StatusTooManyRequests {
				t.Fatalf("the slot is not held: %d", code)
			}
			r.eventually("the slot is free", func() bool { return get() == http.StatusOK })
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it was held for %s", took)
			}
			for _, record := range r.records() {
				if record.BytesOut > 1<<16 && record.Reason == "" && record.Error == "" {
					t.Errorf("the record does not say why it ended: %+v", record)
				}
			}
		})
	}
}

// unready is a client over HTTP/2 that takes no byte of any body.
type unready struct {
	*http2.Framer
	person *person
	next   uint32
}

func (p *person) unready() *unready {
	p.rig.t.Helper()
	conn := p.dial("h2")
	p.rig.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(p.rig.t, err)
	u := &unready{Framer: http2.NewFramer(conn, conn), person: p, next: 1}
	must(p.rig.t, u.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	return u
}

// ask sends a request and returns its stream.
func (u *unready) ask(path string, fields ...string) uint32 {
	u.person.rig.t.Helper()
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	all := append([]string{":method", "GET", ":scheme", "https", ":authority", u.person.rig.kube.host, ":path", path, "authorization", "Bearer " + u.person.token()}, fields...)
	for i := 0; i < len(all); i += 2 {
		// Never indexed: each request is as large as it looks.
		must(u.person.rig.t, encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1], Sensitive: true}))
	}
	rest := block.String()
	stream := u.next
	u.next += 2
	first := rest[:min(len(rest), 16<<10)]
	rest = rest[len(first):]
	must(u.person.rig.t, u.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(first), EndStream: true, EndHeaders: rest == ""}))
	for rest != "" {
		part := rest[:min(len(rest), 16<<10)]
		rest = rest[len(part):]
		must(u.person.rig.t, u.WriteContinuation(stream, rest == "", []byte(part)))
	}
	return stream
}

// until reads frames until one of a kind came for each of streams. It returns for
// which streams one came.
func (u *unready) until(kind http2.FrameType, streams ...uint32) map[uint32]bool {
	u.person.rig.t.Helper()
	waiting, came := map[uint32]bool{}, map[uint32]bool{}
	for _, s := range streams {
		waiting[s] = true
	}
	for len(waiting) > 0 {
		frame, err := u.ReadFrame()
		if err != nil {
			u.person.rig.t.Fatalf("%d streams got no %s: %v", len(waiting), kind, err)
		}
		if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
			must(u.person.rig.t, u.WriteSettingsAck())
		}
		if frame.Header().Type == kind {
			delete(waiting, frame.Header().StreamID)
			came[frame.Header().StreamID] = true
		}
	}
	return came
}

// TestStalledEnd: an answer of which the handler is rid, and which only the client
// does not take, does not stay for as long as the connection does. One that is
// long-running may.
func TestStalledEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{requestTime: 300 * time.Millisecond})
	alice := r.person("alice@example.com")
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Query().Get("watch") != "" {
			watchUpstream(oneEvent)(w, q)
			return
		}
		_, _ = fmt.Fprint(w, "short")
	})
	client := alice.unready()
	watch, log := client.ask("/api/v1/pods?watch=1"), client.ask("/api/v1/namespaces/dev/pods/x/log")
	short, refused := client.ask("/api/v1/pods"), client.ask("/api/v1/%%70ods")
	began := time.Now()
	if reset := client.until(http2.FrameRSTStream, short, refused, log); reset[watch] {
		t.Error("the watch was reset")
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("reset after %s", took)
	}
}
