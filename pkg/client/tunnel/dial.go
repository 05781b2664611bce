package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/trust"
)

// dialTimeout bounds one TCP connection attempt, proxy included.
const dialTimeout = 10 * time.Second

// Environment is the part of a process's environment that says how to get out.
type Environment struct {
	HTTPSProxy string `json:"httpsProxy,omitempty"`
	NoProxy    string `json:"noProxy,omitempty"`
}

// FromEnviron reads HTTPS_PROXY and NO_PROXY in both spellings.
func FromEnviron() Environment {
	c := httpproxy.FromEnvironment()
	return Environment{HTTPSProxy: c.HTTPSProxy, NoProxy: c.NoProxy}
}

// Dialer dials the gateway, through the corporate proxy where there is one.
type Dialer struct {
	Env Environment
	// OwnPorts are the loopback ports on which zt itself listens. The person may
	// well have set HTTPS_PROXY to one of them for kubectl's sake; going through
	// it would be going in circles.
	OwnPorts func() []int

	roots *x509.CertPool // of an https proxy; nil, but in tests: the system's
}

// DialContext connects to addr (host:port). Errors are Faults.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	proxy, err := d.proxy(addr)
	if err != nil {
		return nil, fault.New(fault.ExitFailed, "check HTTPS_PROXY", "HTTPS_PROXY cannot be read: %v", err)
	}
	var plain net.Dialer
	if proxy == nil {
		conn, err := plain.DialContext(ctx, network, addr)
		if err != nil {
			return nil, fault.New(fault.ExitUnreachable, fault.CheckNetwork, "%s cannot be reached: %v", addr, err)
		}
		return conn, nil
	}
	conn, err := d.through(ctx, proxy, addr)
	if err != nil {
		return nil, fault.New(fault.ExitUnreachable, "check HTTPS_PROXY and NO_PROXY", "%s cannot be reached through proxy %s: %v", addr, proxy.Host, err)
	}
	return conn, nil
}

// proxy returns the proxy for addr or nil.
func (d *Dialer) proxy(addr string) (*url.URL, error) {
	c := httpproxy.Config{HTTPSProxy: d.Env.HTTPSProxy, NoProxy: d.Env.NoProxy}
	u, err := c.ProxyFunc()(&url.URL{Scheme: "https", Host: addr})
	if err != nil || u == nil || d.own(u) {
		return nil, err
	}
	return u, nil
}

func (d *Dialer) own(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	if (err != nil || !ip.IsLoopback()) && u.Hostname() != "localhost" {
		return false
	}
	port, err := strconv.Atoi(u.Port())
	return err == nil && d.OwnPorts != nil && slices.Contains(d.OwnPorts(), port)
}

func (d *Dialer) through(ctx context.Context, proxy *url.URL, addr string) (net.Conn, error) {
	if proxy.Scheme != "http" && proxy.Scheme != "https" {
		return nil, fmt.Errorf("scheme %q is not supported", proxy.Scheme)
	}
	hostport := proxy.Host
	if proxy.Port() == "" {
		hostport = net.JoinHostPort(proxy.Hostname(), map[string]string{"http": "80", "https": "443"}[proxy.Scheme])
	}
	var plain net.Dialer
	conn, err := plain.DialContext(ctx, "tcp", hostport)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if proxy.Scheme == "https" {
		// A server that is not ours to choose, as an issuer's is: many know TLS 1.2
		// and nothing newer.
		config := trust.IssuerClient(d.roots)
		config.ServerName = proxy.Hostname()
		config.NextProtos = []string{"http/1.1"}
		conn = tls.Client(conn, config)
	}
	if err := connectVia(conn, proxy.User, addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connectVia asks the proxy for a tunnel. The far side does not speak first, so
// nothing of it can be stuck in the reader.
func connectVia(conn net.Conn, user *url.Userinfo, addr string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 4<<10), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // a tunnel's answer has none; a refusal's ends with conn
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}
