package edge

import (
	"bytes"
	"crypto/ecdsa"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

type privateKey = *ecdsa.PrivateKey

// count is how often something is repeated: in full with ZT_SOAK, a twentieth
// without.
func count(n int) int {
	if os.Getenv("ZT_SOAK") != "" {
		return n
	}
	return n / 20
}

// settingEnableConnect is SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441).
const settingEnableConnect = http2.SettingID(8)

// framer speaks HTTP/2 by the frame, for what no decent client would send.
type framer struct {
	t *testing.T
	*http2.Framer
	settings map[http2.SettingID]uint32
	over     map[uint32]bool
}

func (r *rig) framer(d *device) *framer {
	r.t.Helper()
	conn := r.tls(d)
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		r.t.Fatal(err)
	}
	f := &framer{t: r.t, Framer: http2.NewFramer(conn, conn), settings: map[http2.SettingID]uint32{}, over: map[uint32]bool{}}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.AllowIllegalWrites = true
	if err := f.WriteSettings(); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// headers sends a request without path and scheme, as CONNECT has it.
func (f *framer) headers(stream uint32, end bool, method, authority string, fields ...[2]string) {
	f.t.Helper()
	f.send(stream, end, append([][2]string{{":method", method}, {":authority", authority}}, fields...))
}

func (f *framer) send(stream uint32, end bool, fields [][2]string) {
	f.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range fields {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *framer) data(stream uint32, b []byte) {
	f.t.Helper()
	if err := f.WriteData(stream, false, b); err != nil {
		f.t.Fatal(err)
	}
}

// status waits for the answer on a stream: its status, or "reset".
func (f *framer) status(stream uint32) string {
	f.t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Fatalf("read frame: %v", err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			frame.ForeachSetting(func(s http2.Setting) error {
				f.settings[s.ID] = s.Val
				return nil
			})
			if !frame.IsAck() {
				f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID == stream {
				f.over[stream] = frame.StreamEnded()
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				return "reset"
			}
		case *http2.GoAwayFrame:
			return "goaway " + frame.ErrCode.String()
		}
	}
}

// ended waits for the end of a stream.
func (f *framer) ended(stream uint32) {
	f.t.Helper()
	for !f.over[stream] {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Fatalf("read frame: %v", err)
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			f.over[frame.StreamID] = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			f.over[frame.StreamID] = true
		}
	}
}
