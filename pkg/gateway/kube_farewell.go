package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"mime"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/kube-zt/zt/pkg/wire"
)

// events are a watch's, as far as must be known of them to end it with one more.
type events interface {
	// passed sees what was written to the client.
	passed(b []byte)
	// between reports whether a whole event was written last, or nothing at all.
	between() bool
	// last is an event that says why nothing follows.
	last(why metav1.Status) ([]byte, error)
}

// eventsOf knows the form of an answer, or returns nil where none can be added.
func eventsOf(h http.Header) events {
	if h.Get("Content-Encoding") != "" {
		return nil
	}
	switch kind, _, _ := mime.ParseMediaType(h.Get("Content-Type")); kind {
	case "application/json":
		return &jsonEvents{at: '\n'}
	case runtime.ContentTypeProtobuf:
		return new(protobufEvents)
	}
	return nil
}

// jsonEvents stand on a line each.
type jsonEvents struct{ at byte } // the last byte

func (e *jsonEvents) passed(b []byte) {
	if len(b) > 0 {
		e.at = b[len(b)-1]
	}
}

func (e *jsonEvents) between() bool { return e.at == '\n' }

func (e *jsonEvents) last(why metav1.Status) ([]byte, error) {
	event, err := json.Marshal(struct {
		Type   string        `json:"type"`
		Object metav1.Status `json:"object"`
	}{"ERROR", why})
	return append(event, '\n'), err
}

// protobufEvents come behind their length, four bytes in network order, as
// apimachinery's protobuf.LengthDelimitedFramer writes them.
type protobufEvents struct {
	head [4]byte
	have int    // bytes of head
	left uint32 // bytes of the event that head speaks of
}

func (e *protobufEvents) passed(b []byte) {
	for len(b) > 0 {
		if e.have < len(e.head) {
			n := copy(e.head[e.have:], b)
			e.have, b = e.have+n, b[n:]
			if e.have == len(e.head) {
				e.left = binary.BigEndian.Uint32(e.head[:])
			}
		}
		n := min(int(e.left), len(b))
		e.left, b = e.left-uint32(n), b[n:]
		if e.have == len(e.head) && e.left == 0 {
			e.have = 0
		}
	}
}

func (e *protobufEvents) between() bool { return e.have == 0 }

func (e *protobufEvents) last(why metav1.Status) ([]byte, error) {
	var object bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(&why, &object); err != nil {
		return nil, err
	}
	event, err := (&metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Raw: object.Bytes()}}).Marshal()
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...), nil
}

// farewell ends a watch with an event that says why, where one fits in. It
// reports whether the answer is complete then.
func (a *answer) farewell(r *wire.Refusal) bool {
	if !a.watch || a.code == 0 {
		return false
	}
	if a.events == nil || !a.events.between() {
		return false
	}
	event, err := a.events.last(status(r, http.StatusForbidden, message(r)))
	if err != nil {
		return false
	}
	if _, err := a.Write(event); err != nil {
		return false
	}
	return http.NewResponseController(a.ResponseWriter).Flush() == nil
}
