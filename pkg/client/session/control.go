package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// controlTarget is reserved: no cluster can have that name.
const controlTarget = wire.ControlName + ":443"

// control is the caller for control, over a stream in the tunnel. One HTTP/2
// connection carries the long stream of events and every request beside it.
type control struct {
	caller
	transport *http.Transport
}

func newControl(d Deps, c *clock, outer *tunnel.Outer, roots *x509.CertPool, audience string, proof tunnel.Proof) *control {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		stream, err := outer.Connect(ctx, controlTarget)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(tunnel.Announced(stream, audience, proof), trust.ControlClient(roots))
		if err := conn.HandshakeContext(ctx); err != nil {
			stream.Abort()
			// What the edge said is more than what TLS saw of it.
			if _, refused := stream.Response(ctx); refused != nil {
				return nil, refused
			}
			return nil, fmt.Errorf("control: %w", trust.Explain(err, wire.ControlName))
		}
		return conn, nil
	}
	t := &http.Transport{
		DialTLSContext:     dial,
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	return &control{
		caller: caller{
			client: &http.Client{Transport: t, CheckRedirect: noRedirect},
			base:   "https://" + wire.ControlName, name: "the gateway's control part", agent: d.userAgent(), clock: c,
		},
		transport: t,
	}
}

func (c *control) close() { c.transport.CloseIdleConnections() }
