package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/kube-zt/zt/test/bench/floor"
	"github.com/kube-zt/zt/test/bench/proc"
)

// Names of the ways from a client to the API server.
const (
	direct   = "direct"    // with a client certificate
	least    = "floor"     // the least impersonating proxy
	chain    = "chain"     // the same behind CONNECT and a mutual-TLS connection of its own
	daisy    = "daisy"     // the same behind CONNECT and a stream on one warm connection
	ztDirect = "zt direct" // the kube part alone: passed through by server name
	ztTunnel = "zt"        // as people use it: agent, edge, kube part
)

// way is one way from a client to the API server.
type way struct {
	name  string
	base  string // URL of the API server as seen from the client
	tls   *tls.Config
	proxy *url.URL // CONNECT on loopback, or nil
	dial  string   // host:port to dial instead of base's, or empty
	token func(context.Context) (string, error)
	// Processes in between: the proxy or gateway, and the laptop's half. Zero when
	// there is none. And the API server at the end.
	gateway, laptop, server int
}

// transport makes a transport that shares no connection with another one.
func (w *way) transport() *http.Transport {
	t := &http.Transport{
		TLSClientConfig: w.tls.Clone(), ForceAttemptHTTP2: true,
		DisableCompression: true, MaxIdleConnsPerHost: 100,
	}
	if w.proxy != nil {
		t.Proxy = http.ProxyURL(w.proxy)
	}
	if w.dial != "" {
		t.DialContext = dialTo(w.dial)
	}
	return t
}

// dialTo ignores the name and dials addr.
func dialTo(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// get makes a request and reads the whole answer, which must be 200. It returns
// how long the body was.
func (w *way) get(ctx context.Context, through http.RoundTripper, path string, header http.Header) (int64, error) {
	request, err := w.request(ctx, http.MethodGet, path, header)
	if err != nil {
		return 0, err
	}
	response, err := through.RoundTrip(request)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", w.name, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return 0, fmt.Errorf("%s: GET %s: %s: %s", w.name, path, response.Status, text)
	}
	n, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return n, fmt.Errorf("%s: GET %s: %w", w.name, path, err)
	}
	return n, nil
}

func (w *way) request(ctx context.Context, method, path string, header http.Header) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, w.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("User-Agent", "zt-bench")
	if w.token != nil {
		token, err := w.token(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return request, nil
}

// usage is CPU time since the start of the processes of a way.
type usage struct{ gateway, laptop, server time.Duration }

func (w *way) usage() (usage, error) {
	var u usage
	for _, part := range []struct {
		pid int
		to  *time.Duration
	}{{w.gateway, &u.gateway}, {w.laptop, &u.laptop}, {w.server, &u.server}} {
		if part.pid == 0 {
			continue
		}
		var err error
		if *part.to, err = proc.CPU(part.pid); err != nil {
			return u, err
		}
	}
	return u, nil
}

func (u usage) since(before usage) usage {
	return usage{gateway: u.gateway - before.gateway, laptop: u.laptop - before.laptop, server: u.server - before.server}
}

// ways returns those of names that can be had: without zt, not its own.
func (b *bench) ways(ctx context.Context, names ...string) ([]*way, error) {
	if _, err := b.controlPlane(ctx); err != nil {
		return nil, err
	}
	var ways []*way
	for _, name := range b.wanted(names) {
		w, err := b.way(ctx, name)
		if errors.Is(err, errNoZT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		w.server = b.server
		ways = append(ways, w)
	}
	return ways, nil
}

func (b *bench) way(ctx context.Context, name string) (*way, error) {
	switch name {
	case direct:
		return b.directWay()
	case least:
		return b.floorWay(ctx, name, floor.Proxy, "")
	case chain:
		return b.floorWay(ctx, name, floor.ChainGateway, floor.ChainLaptop)
	case daisy:
		return b.floorWay(ctx, name, floor.DaisyGateway, floor.DaisyLaptop)
	case ztDirect:
		return b.ztDirectWay(ctx)
	case ztTunnel:
		return b.ztTunnelWay(ctx)
	default:
		return nil, errors.New("no such way")
	}
}

func (b *bench) directWay() (*way, error) {
	user, err := b.cp.UserConfig("bench", loadGroup)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(user.CertData, user.KeyData)
	if err != nil {
		return nil, err
	}
	return &way{name: direct, base: b.cp.URL, tls: &tls.Config{RootCAs: pool(b.cp.CAPEM), Certificates: []tls.Certificate{certificate}}}, nil
}

// trusting is a client of servers under an authority in PEM.
func trusting(ca []byte) *tls.Config { return &tls.Config{RootCAs: pool(ca)} }

func pool(ca []byte) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return roots
}

// floorWay goes through a floor, and a laptop's half in front of it where one is
// named.
func (b *bench) floorWay(ctx context.Context, name string, gateway, laptop floor.Kind) (*way, error) {
	g, err := b.floor(ctx, floor.Config{Kind: gateway})
	if err != nil {
		return nil, err
	}
	return b.floorWayTo(ctx, name, g, laptop)
}

func (b *bench) floorWayTo(ctx context.Context, name string, g *floor.Process, laptop floor.Kind) (*way, error) {
	clientTLS, err := b.keys.ClientTLS(false)
	if err != nil {
		return nil, err
	}
	token, err := b.keys.Token("bench:floor", []string{loadGroup}, tokenLife)
	if err != nil {
		return nil, err
	}
	w := &way{
		name: name, base: "https://" + g.Addr, tls: clientTLS, gateway: g.PID,
		token: func(context.Context) (string, error) { return token, nil },
	}
	if laptop == "" {
		return w, nil
	}
	l, err := b.floor(ctx, floor.Config{Kind: laptop, Next: g.Addr})
	if err != nil {
		return nil, err
	}
	w.through(l)
	return w, nil
}

// through puts a laptop's half in front of a floor.
func (w *way) through(laptop *floor.Process) {
	w.laptop = laptop.PID
	w.base = "https://" + floor.ServerName
	w.proxy = &url.URL{Scheme: "http", Host: laptop.Addr}
}

// floor starts a floor, or finds the one of its kind.
func (b *bench) floor(ctx context.Context, config floor.Config) (*floor.Process, error) {
	if p := b.floors[config.Kind]; p != nil {
		return p, nil
	}
	p, err := b.newFloor(ctx, config)
	if err != nil {
		return nil, err
	}
	b.atEnd(p.Stop)
	b.floors[config.Kind] = p
	return p, nil
}

// newFloor starts a floor that the caller stops.
func (b *bench) newFloor(ctx context.Context, config floor.Config) (*floor.Process, error) {
	config.Keys = b.keys
	if config.Server == "" && b.cp != nil {
		config.Server, config.ServerCA = b.cp.URL, b.cp.CAPEM
	}
	config.ServerToken = b.account
	program, err := b.program(ctx, "floor")
	if err != nil {
		return nil, err
	}
	return floor.Start(ctx, program, config)
}
