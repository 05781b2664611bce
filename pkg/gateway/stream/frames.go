package stream

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/wire"
)

// frames follows the borders of frames in one direction of a stream, reading
// lengths and nothing else.
type frames struct {
	webSocket bool
	header    [14]byte
	have      int    // bytes of the present header
	rest      uint64 // bytes of the present payload still to come
}

// boundary reports whether a frame of our own may be put in here.
func (f *frames) boundary() bool { return f.have == 0 && f.rest == 0 }

// next consumes from b at most to the end of the present frame and returns how
// many bytes that were.
func (f *frames) next(b []byte) int {
	n := 0
	for n < len(b) {
		if f.rest > 0 {
			take := min(f.rest, uint64(len(b)-n))
			f.rest -= take
			n += int(take)
			if f.rest == 0 {
				return n
			}
			continue
		}
		f.header[f.have] = b[n]
		f.have++
		n++
		if size := f.size(); f.have == size {
			f.rest = f.length()
			f.have = 0
			if f.rest == 0 {
				return n
			}
		}
	}
	return n
}

// size is how long the present header is, as far as its first bytes tell.
func (f *frames) size() int {
	if !f.webSocket {
		return 8 // SPDY/3.1: type or stream, flags, 24 bits of length
	}
	if f.have < 2 {
		return 2
	}
	size := 2
	switch f.header[1] & 0x7F {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.header[1]&0x80 != 0 {
		size += 4 // a mask, which servers do not use
	}
	return size
}

func (f *frames) length() uint64 {
	if !f.webSocket {
		return uint64(binary.BigEndian.Uint32(f.header[4:8]) & 0xFFFFFF)
	}
	switch n := f.header[1] & 0x7F; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:4]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:10])
	default:
		return uint64(n)
	}
}

// farewell is the frame that tells a client why its stream ends.
func (s *Session) farewell(r *wire.Refusal) []byte {
	if s.upgrade.Protocol == WebSocket {
		return closeFrame(r.Error())
	}
	return errorFrame(s.protocol, r)
}

// policyViolation is the close code of RFC 6455 section 7.4.1 whose reason
// stock kubectl prints.
const policyViolation = 1008

// closeFrame is a WebSocket close frame; its reason has room for 123 bytes.
func closeFrame(reason string) []byte {
	const room = 123
	if len(reason) > room {
		reason = reason[:room]
		for !utf8.ValidString(reason) {
			reason = reason[:len(reason)-1]
		}
	}
	frame := []byte{0x88, byte(2 + len(reason))}
	frame = binary.BigEndian.AppendUint16(frame, policyViolation)
	return append(frame, reason...)
}

// errorStream is the first stream that kubectl and client-go open in exec,
// attach and port-forward, and it is the one for errors. A client that opened
// another there reads the text on that one.
const errorStream = 1

// errorFrame is a SPDY data frame, not compressed, that ends the error stream.
func errorFrame(protocol string, r *wire.Refusal) []byte {
	payload := []byte(r.Error())
	if protocol == "v4.channel.k8s.io" || protocol == "v5.channel.k8s.io" {
		status := metav1.Status{
			Status:  metav1.StatusFailure,
			Message: r.Error(),
			Reason:  metav1.StatusReasonForbidden,
			Code:    http.StatusForbidden,
		}
		if encoded, err := json.Marshal(status); err == nil {
			payload = encoded
		}
	}
	const flagFin = 0x01
	frame := binary.BigEndian.AppendUint32(nil, errorStream)
	frame = binary.BigEndian.AppendUint32(frame, uint32(flagFin)<<24|uint32(len(payload)))
	return append(frame, payload...)
}
