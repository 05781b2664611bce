package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of an accepted connection (VECTORS, decision 23).
const (
	headerLimit     = 64 << 10
	headerTime      = 10 * time.Second
	idleTime        = 10 * time.Minute
	streamsPerLink  = 100
	streamWindow    = 128 << 10
	linkWindow      = 256 << 10
	maxRequestBody  = 3 << 20
	requestTime     = 75 * time.Second // the API server's own is 60 s
	maxPath         = 8 << 10
	linkPingAfter   = 30 * time.Second
	linkPingTimeout = 15 * time.Second
)

// What one person can have the gateway hold by not reading, or by sending what
// upstream does not take, with all that the limits allow (docs/threat-model.md):
//
//   - of short answers, for requestTime: receiveWindow (package stream, 192 KiB) for
//     each of the person's share of slots, 337 at most, which makes 63 MiB;
//   - of what is long-running, as long as it runs: followWindow (64 KiB) for each of
//     1000, 63 MiB;
//   - of bodies: linkWindow for each of a device's 256 tunnels, 64 MiB;
//   - of answers that are complete and not taken, for as long as the write timeout:
//     14 KiB (TestStalledRefusals) for each of streamsPerLink streams of a tunnel,
//     350 MiB with all 256. net/http does not tell when a stream is over, so they
//     cannot be counted; who needs less sets limits.tunnelsPerDevice.
//
// What the windows cost: a body goes out at 128 KiB for each round trip to the
// laptop, where the API server itself would take 256 KiB.

type linkKey struct{}

// newServer reads requests off accepted connections. What somebody does not read is
// held for no longer than a request may take, also when its handler has returned
// and its slot is free again; a long-running request takes the timeout off.
func (k *Kube) newServer() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(k.serve),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		WriteTimeout:      k.requestTime + 2*cutGrace,
		// net/http allows 4 KiB of slack on top.
		MaxHeaderBytes: headerLimit - 4<<10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streamsPerLink,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: linkWindow,
			SendPingTimeout:               linkPingAfter,
			PingTimeout:                   linkPingTimeout,
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			l := k.links.of(conn)
			if l == nil {
				return ctx
			}
			// What ends the link ends every request on it, with its reason.
			ctx, cancel := context.WithCancelCause(ctx)
			context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })
			return context.WithValue(ctx, linkKey{}, l)
		},
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				if l := k.links.of(conn); l != nil {
					l.close()
				}
			}
		},
		// Broken handshakes and vanished clients are no events of ours.
		ErrorLog: slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
	}
}
