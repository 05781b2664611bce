package session

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/kube-zt/zt/pkg/client/profile"
)

// Deps are what a Session needs of the process around it.
type Deps struct {
	Home profile.Home
	Log  *slog.Logger
	// Now is this machine's clock.
	Now func() time.Time
	// Dial reaches the gateway's address, through the corporate proxy if any.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// SystemRoots verify a WebPKI gateway; nil means the system's.
	SystemRoots *x509.CertPool
	// Version of kubectl-zt, for User-Agent, device statement and the gateway's
	// minimum.
	Version string
	// InUse tells how many connections each host of the profile has, so that a
	// renewal reaches exactly those clusters.
	InUse func(profile.Name) map[string]int
}

func (d Deps) userAgent() string {
	return "kubectl-zt/" + d.Version + " (" + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

// DeviceCode is how much a login wants the device authorisation grant.
type DeviceCode int

// The wishes. What the gateway allowed at the last login may be allowed no more:
// who did not ask for the grant by name gets the page of his provider then.
const (
	DeviceCodeNever DeviceCode = iota
	DeviceCodeIfAllowed
	DeviceCodeOnly
)

// Prompt is how a login speaks to the person. It lives with the command that the
// person runs, not with the agent.
type Prompt struct {
	// Open shows a URL in his browser; nil where there is none.
	Open func(ctx context.Context, url string) error
	// Out takes what he must read: the URL, or the device code.
	Out io.Writer
	// QR says that Out is a terminal that can show a QR code.
	QR bool
	// DeviceCode is whether the device authorisation grant is wanted.
	DeviceCode DeviceCode
	// Progress says what is going on, one line at a time.
	Progress func(string)
	// Warn says what he should know although all goes well.
	Warn func(string)
}
