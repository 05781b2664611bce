package stream

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kube-zt/zt/pkg/wire"
)

// frame is one of n bytes of payload.
func frame(webSocket bool, n int, masked bool) []byte {
	if !webSocket {
		f := binary.BigEndian.AppendUint32(nil, 0x80030006)
		return append(binary.BigEndian.AppendUint32(f, uint32(n)), make([]byte, n)...)
	}
	var mask byte
	if masked {
		mask = 0x80
	}
	f := []byte{0x82}
	switch {
	case n < 126:
		f = append(f, mask|byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, mask|126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, mask|127), uint64(n))
	}
	if masked {
		f = append(f, 1, 2, 3, 4)
	}
	return append(f, make([]byte, n)...)
}

// TestFrames: however the bytes come in, a boundary is seen at the end of each
// frame and nowhere else.
func TestFrames(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for _, webSocket := range []bool{true, false} {
		for range 200 {
			var all []byte
			ends := map[int]bool{}
			for range 1 + random.IntN(6) {
				size := []int{0, 1, 125, 126, 127, 65535, 65536, 70000}[random.IntN(8)]
				all = append(all, frame(webSocket, size, random.IntN(2) == 0)...)
				ends[len(all)] = true
			}
			f := frames{webSocket: webSocket}
			for at := 0; at < len(all); {
				chunk := all[at:min(len(all), at+1+random.IntN(50000))]
				for len(chunk) > 0 {
					n := f.next(chunk)
					if n == 0 {
						t.Fatal("no progress")
					}
					at, chunk = at+n, chunk[n:]
					if f.boundary() != ends[at] {
						t.Fatalf("at %d of %d: boundary %v", at, len(all), f.boundary())
					}
				}
			}
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(true, []byte{0x82, 126, 0, 3, 1, 2, 3, 0x88, 0})
	f.Add(false, []byte{0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, webSocket bool, data []byte) {
		whole, single := frames{webSocket: webSocket}, frames{webSocket: webSocket}
		for rest := data; len(rest) > 0; {
			n := whole.next(rest)
			if n <= 0 || n > len(rest) {
				t.Fatalf("consumed %d of %d", n, len(rest))
			}
			rest = rest[n:]
		}
		for i := range data {
			single.next(data[i : i+1])
		}
		if whole != single {
			t.Errorf("at once %+v, byte by byte %+v", whole, single)
		}
	})
}

func TestCloseFrame(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"", "short", strings.Repeat("x", 300), strings.Repeat("ä", 100)} {
		got := closeFrame(reason)
		if got[0] != 0x88 || int(got[1]) != len(got)-2 || got[1] > 125 || binary.BigEndian.Uint16(got[2:]) != 1008 || !utf8.Valid(got[4:]) || !strings.HasPrefix(reason, string(got[4:])) {
			t.Errorf("%q: %x", reason, got)
		}
	}
}

func TestErrorFrame(t *testing.T) {
	t.Parallel()
	refusal := wire.Refuse(wire.ReasonRevoked, "kubectl zt login", "gone")
	for protocol, want := range map[string]string{"v4.channel.k8s.io": `"message":"gone (kubectl zt login)"`, "v1": "gone (kubectl zt login)", "": "gone"} {
		got := errorFrame(protocol, refusal)
		if binary.BigEndian.Uint32(got) != 1 || got[4] != 1 || int(binary.BigEndian.Uint32(got[4:])&0xFFFFFF) != len(got)-8 || !bytes.Contains(got, []byte(want)) {
			t.Errorf("%s: %q", protocol, got)
		}
	}
}

func TestRelative(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]bool{
		"/a": true, "a/b": true, "?x=http://y": true, "#x": true, "a?b:c": true, "./x:y": true, "/": true,
		"": false, "//host": false, "http://host": false, "javascript:x": false, "x:y": false, `/\host`: false, "/\thost": false, "HTTPS:/x": false,
	} {
		if got := relative([]string{location}); got != want {
			t.Errorf("%q: %v", location, got)
		}
	}
	if relative(nil) || relative([]string{"/a", "/b"}) {
		t.Error("none or two")
	}
}
