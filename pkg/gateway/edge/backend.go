package edge

import (
	"context"
	"net"
	"net/netip"

	"github.com/kube-zt/zt/pkg/wire"
)

// Backend is where a stream ends: the kube part of a cluster, or control.
type Backend interface {
	// ServeStream owns conn from the call on and has closed it when it
	// returns. It ends soon after ctx does. What the peer sent before the
	// edge had answered is the first thing to be read from conn.
	ServeStream(ctx context.Context, conn net.Conn, notes Notes)
}

// Regimes that a stream may have come by.
const (
	RegimeTunnel = "tunnel" // a CONNECT inside mutual TLS
	RegimeDirect = "direct" // CLUSTER.direct.DOMAIN, raw bytes
)

// Notes are what the edge says of a stream. They serve audit and limits and
// never allow anything: whoever sits between laptop and cluster could have
// written them, so a backend takes identity from the peer proof alone.
type Notes struct {
	// Client is the address that the edge saw.
	Client netip.AddrPort
	// Regime is RegimeTunnel or RegimeDirect.
	Regime string
	// Session and Device are those of the outer certificate; empty when direct.
	Session wire.SessionID
	Device  wire.DeviceID
}
