package edge

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/limit"
	"github.com/kube-zt/zt/pkg/wire"
)

// httpSide is an http.Server for one regime.
type httpSide struct {
	server *http.Server
	inbox  *Inbox
}

func newHTTPSide(server *http.Server, log *slog.Logger) *httpSide {
	server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	return &httpSide{server: server, inbox: NewInbox()}
}

func (s *httpSide) serve() { _ = s.server.Serve(s.inbox) } // ends only by Close or Shutdown

// unreadBody is how many bytes of bodies that nobody has asked for are held for
// one connection of a stranger. Go's default is 1 MiB.
const unreadBody = 64 << 10

// strangersServer serves gw.DOMAIN: everything that a stranger may do has a
// short limit.
func strangersServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 32, MaxReceiveBufferPerConnection: unreadBody, MaxReceiveBufferPerStream: unreadBody},
	}
}

// serveHTTP does the handshake of gw.DOMAIN and waits for the connection's end.
func (e *Edge) serveHTTP(ctx context.Context, conn *peekedConn, client netip.AddrPort, side *httpSide) {
	leave, ok := e.gateways.Enter(limit.Sources(client.Addr())...)
	if !ok {
		e.o.Metrics.Handshake("gateway", "crowded")
		conn.Close()
		return
	}
	defer leave()
	secure, ok := e.handshake(ctx, conn, e.gatewayTLS, "gateway")
	if !ok {
		return
	}
	e.o.Metrics.Connection("edge", "gateway", 1)
	defer e.o.Metrics.Connection("edge", "gateway", -1)
	if !side.inbox.Give(ctx, secure) {
		conn.Close()
	}
	<-conn.closed
}

// misdirected answers whoever asked for a name that is not ours (RFC 9110,
// 15.5.20): the certificate that he saw is not for it either.
func misdirected(w http.ResponseWriter, _ *http.Request) {
	WriteRefusal(w, wire.Refuse(wire.ReasonWrongHost, "", "this name is not served here"))
}

// sameHost refuses a request whose Host is another name than that of the TLS
// handshake, which is what a connection would be that a browser reuses. Who has
// sent no name, probes and laptops that were given an address, may say anything.
func sameHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if r.TLS == nil || (r.TLS.ServerName != "" && !strings.EqualFold(host, r.TLS.ServerName)) {
			misdirected(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// WriteRefusal answers a plain request, here and on gw.DOMAIN and control's
// streams.
func WriteRefusal(w http.ResponseWriter, refusal *wire.Refusal) {
	body, err := json.Marshal(refusal)
	if err != nil {
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if refusal.Reason == wire.ReasonLimit {
		w.Header().Set("Retry-After", "30")
	}
	if refusal.Decision != "" {
		w.Header().Set(wire.HeaderDecision, string(refusal.Decision))
	}
	w.WriteHeader(refusal.Status())
	w.Write(body)
}
