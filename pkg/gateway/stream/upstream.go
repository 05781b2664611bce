package stream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/trust"
)

const (
	// dialTimeout and handshakeTimeout together stay under what a person waits
	// before he believes that nothing happens.
	dialTimeout      = 4 * time.Second
	handshakeTimeout = 4 * time.Second
	// pingAfter of silence a connection is asked whether it still lives.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// receiveWindow and followWindow are what upstream may send on one request while
	// nobody reads: they bound the memory that a stalled client costs. What follows
	// something may stall for hours, and one person may have a thousand of it
	// (package limit), which must not be a gigabyte. An answer of 200 MiB comes as
	// fast through 192 KiB as through 1 MiB where the API server is near.
	receiveWindow = 192 << 10
	followWindow  = 64 << 10
	// maxHeader bounds the head of an answer, interim ones each for itself. net/http
	// would hold 10 MiB for each of all requests in flight.
	maxHeader = 256 << 10
	// connections to one API server that ordinary requests share, and as many for
	// those that follow something. One is enough for the throughput; two keep a lost
	// packet from stopping everybody.
	connections = 2
)

// Options of an Upstream.
type Options struct {
	// URL of the kube-apiserver: https, with an optional path in front.
	URL *url.URL
	// Roots and ServerName verify its certificate; nil roots are the system's.
	Roots      *x509.CertPool
	ServerName string
	// Token is the gateway's own credential.
	Token *impersonate.TokenFile
}

// Upstream is the leg to one kube-apiserver.
type Upstream struct {
	base     url.URL
	ordinary http.RoundTripper
	follows  http.RoundTripper
	upgrades http.RoundTripper
	own      http.RoundTripper
	account  func() string // the user name of the gateway's own credential, "" where it is not known
	all      []*http.Transport
}

// NewUpstream connects to nothing yet.
func NewUpstream(o Options) (*Upstream, error) {
	if o.URL == nil || o.URL.Scheme != "https" || o.URL.Host == "" || o.URL.RawQuery != "" || o.URL.User != nil {
		return nil, errors.New("upstream: the URL must be https://HOST[:PORT][/PATH]")
	}
	if o.Token == nil {
		return nil, errors.New("upstream: no token file")
	}
	u := &Upstream{base: *o.URL, account: o.Token.Account}
	pool, following := &alternating{}, &alternating{}
	for range connections {
		pool.transports = append(pool.transports, u.transport(o, receiveWindow, "h2", "http/1.1"))
		following.transports = append(following.transports, u.transport(o, followWindow, "h2", "http/1.1"))
	}
	// Upgrades are HTTP/1.1 only: over HTTP/2 there is none, and an API server
	// that is offered both would choose the wrong one (kubernetes#88781).
	upgrades := u.transport(o, receiveWindow, "http/1.1")
	upgrades.DisableKeepAlives = true
	upgrades.DisableCompression = true

	u.ordinary = &impersonate.Transport{Base: pool, Token: o.Token}
	u.follows = &impersonate.Transport{Base: following, Token: o.Token}
	u.upgrades = &impersonate.Transport{Base: upgrades, Token: o.Token}
	u.own = &impersonate.Transport{Base: pool, Token: o.Token, Bare: true}
	return u, nil
}

func (u *Upstream) transport(o Options, window int, protocols ...string) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: pingAfter}
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        trust.UpstreamClient(o.Roots, o.ServerName, protocols...),
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    100, // counts only where the server speaks HTTP/1.1
		IdleConnTimeout:        5 * time.Minute,
		// Where a client does not ask for gzip, net/http does and unpacks: an
		// API server writes uncompressed lists in frames of 4 KiB. Watches are
		// never compressed.
		DisableCompression: false,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: window,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
		},
		Protocols: &http.Protocols{},
	}
	t.Protocols.SetHTTP1(true)
	// Without this a transport with a TLS configuration of its own speaks
	// HTTP/1.1, which alone makes a proxy three times as slow.
	t.Protocols.SetHTTP2(len(protocols) > 1)
	u.all = append(u.all, t)
	return t
}

// alternating spreads requests over the transports, each of which has one
// HTTP/2 connection.
type alternating struct {
	transports []*http.Transport
	next       atomic.Uint32
}

func (a *alternating) RoundTrip(r *http.Request) (*http.Response, error) {
	return a.transports[a.next.Add(1)%uint32(len(a.transports))].RoundTrip(r)
}

// target is the address of what was judged: the same path, byte for byte, and
// the same query.
func (u *Upstream) target(judged *url.URL) *url.URL {
	target := u.base
	target.Path = u.base.Path + judged.Path
	if judged.RawPath != "" || u.base.RawPath != "" {
		target.RawPath = u.base.EscapedPath() + judged.EscapedPath()
	}
	target.RawQuery = judged.RawQuery
	target.ForceQuery = judged.ForceQuery
	return &target
}

// Own sends requests of the gateway itself, with its credential and no
// identity. Nothing that a client sent may go here.
func (u *Upstream) Own() http.RoundTripper { return u.own }

// Base is the API server's address.
func (u *Upstream) Base() *url.URL {
	base := u.base
	return &base
}

// Probe asks whether the API server answers and takes the gateway's credential.
func (u *Upstream) Probe(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.base.JoinPath("/readyz").String(), nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	response, err := u.own.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer response.Body.Close()
	// 403 is an answer too: somebody is there who knows us.
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("probe: the API server answered %d", response.StatusCode)
	}
	return nil
}

// Close lets idle connections go. Running requests keep theirs.
func (u *Upstream) Close() {
	for _, t := range u.all {
		t.CloseIdleConnections()
	}
}
