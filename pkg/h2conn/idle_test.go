//go:build !race

package h2conn

// Not with the race detector, which needs memory of its own.

import (
	"io"
	"runtime"
	"testing"
)

// TestIdleMemory: an idle stream that has carried a large body costs both ends
// together less than the 64 KiB that the gateway has for a whole watch, but for the
// frame that the client of net/http2 keeps at hand.
func TestIdleMemory(t *testing.T) {
	const connections, large, limit = 5, 256 << 10, serverFrame + 64<<10
	server := serveStreams(t, func(s *ServerStream) {
		s.Write(make([]byte, large))
		s.Write([]byte("tail")) // and then it is quiet
		io.Copy(io.Discard, s)
	})
	use := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools give up what they hold in the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	clients := make([]*Client, connections)
	for i := range clients {
		clients[i] = server.dial(t)
		stream := connect(t, clients[i])
		io.ReadFull(stream, make([]byte, large+4))
		stream.Abort()
	}
	before := use()
	const streams = connections * 40
	body := make([]byte, large+4)
	for i := range streams {
		stream := connect(t, clients[i%connections])
		if _, err := io.ReadFull(stream, body); err != nil {
			t.Fatal(err)
		}
	}
	each := (int64(use()) - int64(before)) / streams
	t.Logf("%d bytes for each idle stream, both ends", each)
	if each > limit {
		t.Errorf("%d bytes for each idle stream, at most %d are allowed", each, limit)
	}
}
