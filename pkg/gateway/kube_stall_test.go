package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
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

// TestStalledBody: so does a body that does not come.
func TestStalledBody(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{requestTime: time.Second, limits: v1alpha1.Limits{WritesInFlight: 2}})
			alice := r.person("alice@example.com")
			body, more := io.Pipe()
			defer more.Close()
			go func() { _, _ = io.WriteString(more, `{"kind":`) }()
			began := time.Now()
			done := make(chan reply, 1)
			slow, other := alice.http(protocol), alice.http("h2")
			request := alice.request(http.MethodPost, "/api/v1/namespaces/dev/pods", body)
			go func() { done <- r.do(slow, request) }()
			post := func() int {
				return r.do(other, alice.request(http.MethodPost, "/api/v1/namespaces/dev/services", strings.NewReader("{}"))).code
			}
			r.eventually("the slot is held", func() bool {
				return r.series(`zt_requests_in_flight{class="write",cluster="prod"}`) == "1"
			})
			if code := post(); code != http.StatusTooManyRequests {
				t.Fatalf("a second write: %d", code)
			}
			r.eventually("the slot is free", func() bool { return post() == http.StatusOK })
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it was held for %s", took)
			}
			if got := <-done; got.code != http.StatusGatewayTimeout {
				t.Errorf("%d %s", got.code, got.body)
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
// does not take, does not stay for as long as the connection does. What is
// long-running may.
func TestStalledEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{requestTime: 300 * time.Millisecond})
	alice := r.person("alice@example.com")
	late := make(chan struct{})
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.Header.Get("Upgrade") != "":
			switched(switching("websocket"), echo)(w, q)
		case q.URL.Query().Get("watch") != "":
			_, _ = io.WriteString(w, oneEvent)
			_ = http.NewResponseController(w).Flush()
			<-late
			_, _ = io.WriteString(w, oneEvent)
		default:
			_, _ = io.WriteString(w, "short")
		}
	})
	exec := alice.open(alice.upgrade("GET", execPath, "websocket"))
	followed, err := alice.http("http/1.1").Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
	must(t, err)
	defer followed.Body.Close()

	client := alice.unready()
	watch, log := client.ask("/api/v1/pods?watch=1"), client.ask("/api/v1/namespaces/dev/pods/x/log")
	short, refused := client.ask("/api/v1/pods"), client.ask("/api/v1/%70ods")
	began := time.Now()
	if reset := client.until(http2.FrameRSTStream, short, refused, log); reset[watch] {
		t.Error("the watch was reset")
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("reset after %s", took)
	}
	close(late)
	if rest, err := io.ReadAll(followed.Body); err != nil || string(rest) != oneEvent+oneEvent {
		t.Errorf("a watch over http/1.1: %q, %v", rest, err)
	}
	_, err = io.WriteString(exec, "still there")
	must(t, err)
	if b, err := exec.reader.Peek(len("still there")); err != nil {
		t.Errorf("exec: %q, %v", b, err)
	}
}

// held is what the process has in use, in bytes.
func held() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestV142: what a client that does not read costs in memory, while what it has
// asked for goes on without end. The test's upstream is in the same process.
func TestV142(t *testing.T) { // alone, or it would measure others
	const streams = 50
	endless := func(w io.Writer, chunk []byte) {
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	chunk := make([]byte, 64<<10)
	for name, test := range map[string]struct {
		most int64 // bytes for each
		open func(*rig, *person)
	}{
		"logs over h2": {300 << 10, func(_ *rig, p *person) {
			client := p.unready()
			for range streams {
				client.ask("/api/v1/namespaces/dev/pods/x/log?follow=true")
			}
		}},
		"watches over http/1.1": {300 << 10, func(_ *rig, p *person) {
			for range streams {
				conn := p.dial("http/1.1")
				p.rig.t.Cleanup(func() { conn.NetConn().Close() })
				_, err := fmt.Fprintf(conn, "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", p.rig.kube.host, p.token())
				must(p.rig.t, err)
			}
		}},
		"exec": {500 << 10, func(_ *rig, p *person) {
			for range streams {
				conn := p.dial("http/1.1")
				p.rig.t.Cleanup(func() { conn.NetConn().Close() })
				_, err := io.WriteString(conn, p.upgrade("GET", execPath, "websocket"))
				must(p.rig.t, err)
			}
		}},
		"lists over h2": {500 << 10, func(_ *rig, p *person) {
			client := p.unready()
			for range streams {
				client.ask("/api/v1/pods")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var wrote atomic.Int64
			var begun atomic.Int32
			r := newRig(t, rigOptions{})
			r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
				if !strings.Contains(q.URL.Path, "pods") {
					return
				}
				begun.Add(1)
				counting := writerFunc(func(b []byte) (int, error) {
					wrote.Store(time.Now().UnixNano())
					return w.Write(b)
				})
				if q.Header.Get("Upgrade") == "" {
					endless(counting, chunk)
					return
				}
				switched(switching("websocket"), func(conn net.Conn, _ *bufio.Reader) {
					endless(writerFunc(func(b []byte) (int, error) {
						wrote.Store(time.Now().UnixNano())
						return conn.Write(b)
					}), chunk)
				})(w, q)
			})
			alice := r.person("alice@example.com")
			alice.get("/version")
			before := held()
			test.open(r, alice)
			r.eventually("all stand still", func() bool {
				return begun.Load() >= streams && time.Since(time.Unix(0, wrote.Load())) > 300*time.Millisecond
			})
			each := (held() - before) / streams
			t.Logf("%d KiB each", each>>10)
			if each > test.most {
				t.Errorf("%d KiB each, want at most %d", each>>10, test.most>>10)
			}
			if got := alice.get("/version"); got.code != http.StatusOK {
				t.Error("others are held up")
			}
		})
	}
}

// TestStalledRefusals: what is over but for the last bytes, which the client does
// not take, costs little, however large the request was.
func TestStalledRefusals(t *testing.T) { // alone, as above
	const streams = 90
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	alice.get("/version")
	client := alice.unready()
	large := strings.Repeat("x", 40<<10)
	before := held()
	for range streams {
		client.ask("/api/v1/%70ods", "x-large", large)
	}
	r.eventually("all are refused", func() bool { return len(r.records()) == streams+1 })
	each := (held() - before) / streams
	t.Logf("%d KiB each", each>>10)
	if each > 32<<10 {
		t.Errorf("%d KiB each", each>>10)
	}
}
