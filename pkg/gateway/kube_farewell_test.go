package gateway

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// watchUpstream sends text, then waits for the end.
func watchUpstream(text string) http.HandlerFunc { return watchIn("application/json", text) }

// watchIn is a watchUpstream in another form.
func watchIn(form, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", form)
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

const oneEvent = `{"type":"ADDED","object":{"kind":"Pod"}}` + "\n"

// TestCutWatch: a watch that is cut between two events ends with an event that
// says why, in the form of the others; one that is cut inside an event, or whose
// form is not known, breaks off.
func TestCutWatch(t *testing.T) {
	t.Parallel()
	const protobuf = "application/vnd.kubernetes.protobuf;stream=watch"
	event := string(binary.BigEndian.AppendUint32(nil, 300)) + strings.Repeat("\n", 300)
	for name, test := range map[string]struct {
		form, text string
		farewell   bool
	}{
		"between events":              {"application/json", oneEvent + oneEvent, true},
		"before the first":            {"application/json;stream=watch", "", true},
		"inside an event":             {"application/json", oneEvent + `{"type":"ADD`, false},
		"protobuf, between events":    {protobuf, event + event, true},
		"protobuf, an empty one":      {protobuf, "\x00\x00\x00\x00", true},
		"protobuf, before the first":  {protobuf, "", true},
		"protobuf, inside an event":   {protobuf, event + event[:100], false},
		"protobuf, inside a length":   {protobuf, event + event[:3], false},
		"protobuf, after a length":    {protobuf, event + event[:4], false},
		"in a form that nobody knows": {"application/cbor-seq", "\n", false},
		"an answer that is no watch":  {"", "", false},
	} {
		for _, protocol := range []string{"h2", "http/1.1"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, rigOptions{})
				alice := r.person("alice@example.com")
				r.upstream.handle(watchIn(test.form, test.text))
				response, err := alice.http(protocol).Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
				must(t, err)
				defer response.Body.Close()
				head := make([]byte, len(test.text))
				if _, err := io.ReadFull(response.Body, head); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Session: string(alice.session), Reason: "gone home"}}}, wire.Epoch{Generation: 1, Sequence: 99})
				rest, err := io.ReadAll(response.Body)
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("cut after %s", took)
				}
				if !test.farewell {
					if err == nil || len(rest) != 0 {
						t.Errorf("it ended as if complete: %q, %v", rest, err)
					}
					return
				}
				must(t, err)
				if kind, why := lastEvent(t, test.form, rest); kind != "ERROR" || why.Code != 403 || !strings.Contains(why.Message, "gone home") {
					t.Errorf("%s %v: %q", kind, why, rest)
				}
			})
		}
	}
}

// TestCutEncodedWatch: into what is compressed no event can be put.
func TestCutEncodedWatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		watchUpstream(oneEvent)(w, q)
	})
	request := alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := alice.http("h2").Do(request)
	must(t, err)
	defer response.Body.Close()
	if _, err := io.ReadFull(response.Body, make([]byte, len(oneEvent))); err != nil {
		t.Fatal(err)
	}
	r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Session: string(alice.session), Reason: "gone home"}}}, wire.Epoch{Generation: 1, Sequence: 99})
	if rest, err := io.ReadAll(response.Body); err == nil || len(rest) != 0 {
		t.Errorf("it ended as if complete: %q, %v", rest, err)
	}
}

// lastEvent reads one event as client-go does.
func lastEvent(t *testing.T, form string, data []byte) (string, metav1.Status) {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), strings.Split(form, ";")[0])
	if !ok || info.StreamSerializer == nil {
		t.Fatalf("client-go does not know %s", form)
	}
	frames := info.StreamSerializer.Framer.NewFrameReader(io.NopCloser(bytes.NewReader(data)))
	decoder := restwatch.NewDecoder(streaming.NewDecoder(frames, info.StreamSerializer.Serializer), scheme.Codecs.UniversalDeserializer())
	defer decoder.Close()
	kind, object, err := decoder.Decode()
	must(t, err)
	status, ok := object.(*metav1.Status)
	if !ok {
		t.Fatalf("%T", object)
	}
	return string(kind), *status
}

// TestCutStalledWatch: a client that does not read is cut all the same.
func TestCutStalledWatch(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{})
			alice := r.person("alice@example.com")
			var wrote atomic.Int64 // when, the last time
			r.upstream.handle(func(w http.ResponseWriter, q *http.Request) {
				for q.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat(oneEvent, 1000)); err != nil {
						return
					}
					wrote.Store(time.Now().UnixNano())
				}
			})
			response, err := alice.http(protocol).Do(alice.request(http.MethodGet, "/api/v1/pods?watch=1", nil))
			must(t, err)
			defer response.Body.Close()
			r.eventually("nothing moves any more", func() bool {
				return wrote.Load() != 0 && time.Since(time.Unix(0, wrote.Load())) > 200*time.Millisecond
			})
			began := time.Now()
			r.registry.Apply([]*v1alpha1.Revocation{{Spec: v1alpha1.RevocationSpec{Role: "all"}}}, wire.Epoch{Generation: 1, Sequence: 99})
			r.eventually("the outcome", func() bool { records := r.records(); return len(records) == 1 && records[0].Reason != "" })
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("cut after %s", took)
			}
		})
	}
}
