package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

const tunnel = "tunnel.example.com"

// TestTunnelServer: who gets through the handshake, and who does not.
func TestTunnelServer(t *testing.T) {
	t.Parallel()
	gateway, ca, cluster := newAuthority(t, "gateway"), newAuthority(t, "trust"), newAuthority(t, "trust")
	none := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	kubeconfig := func(c *x509.Certificate) { *c = *kubeconfigTemplate(t, "prod") }
	denied := wire.SessionID("deniedsessiondenied")
	for name, test := range map[string]struct {
		client GetClientCertificate
		change func(*tls.Config)
		want   string // in the server's error; empty: gets through
	}{
		"good": {client: ca.client(t)},
		"no certificate": {
			client: none, want: "didn't provide a certificate",
		},
		"expired": {
			client: ca.client(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }),
			want:   "expired",
		},
		"not yet valid": {
			client: ca.client(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
			want:   "not yet valid",
		},
		"V058 issued by the authority of another purpose": {
			client: cluster.client(t), want: "unknown authority",
		},
		"kubeconfig certificate under the trust authority": {
			client: ca.client(t, kubeconfig), want: "1 names",
		},
		"server certificate": {
			client: ca.client(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			want:   "incompatible key usage",
		},
		"server and client certificate": {
			client: ca.client(t, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }),
			want:   "clientAuth alone",
		},
		"on the deny list": {
			client: ca.client(t, func(c *x509.Certificate) { c.URIs[0].Path = "/trust/" + string(denied) }),
			want:   "denied",
		},
		"TLS 1.2": {
			client: ca.client(t),
			change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
			want:   "version",
		},
		"HTTP/1.1": {
			client: ca.client(t),
			change: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} },
			want:   "application protocol",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen atomic.Pointer[Identity]
			server := TunnelServer(gateway.server(t, tunnel), ca.roots, func(id Identity) error {
				seen.Store(&id)
				if id.Session == denied {
					return errors.New("denied")
				}
				return nil
			}, domain)
			client := TunnelClient(tunnel, gateway.pool(), test.client)
			if test.change != nil {
				test.change(client)
			}
			out := meet(t, server, client)
			if test.want == "" {
				if out.server != nil || out.client != nil || seen.Load().User.Name != "alice@example.com" {
					t.Errorf("server %v, client %v, identity %v", out.server, out.client, seen.Load())
				}
				if protocol := out.serverState.NegotiatedProtocol; protocol != "h2" {
					t.Errorf("protocol %q", protocol)
				}
				return
			}
			if out.server == nil || !strings.Contains(out.server.Error(), test.want) {
				t.Errorf("server: %v, want %q", out.server, test.want)
			}
			if out.client == nil {
				t.Error("the client got an answer")
			}
		})
	}
}

// TestNilPool: a pool that is not there lets nobody in, least of all those whom
// the system's authorities know.
func TestNilPool(t *testing.T) {
	t.Parallel()
	gateway, ca := newAuthority(t, "gateway"), newAuthority(t, "trust")
	server := TunnelServer(gateway.server(t, tunnel), func() *x509.CertPool { return nil }, func(Identity) error { return nil }, domain)
	if config, err := server.GetConfigForClient(nil); err != nil || config.ClientCAs == nil {
		t.Errorf("client authorities %v, %v", config.ClientCAs, err)
	}
	if out := meet(t, server, TunnelClient(tunnel, gateway.pool(), ca.client(t))); out.server == nil {
		t.Error("accepted without any authority")
	}
	for name, config := range map[string]*tls.Config{
		"tunnel": TunnelClient(tunnel, nil, nil), "control": ControlClient(nil),
	} {
		if config.RootCAs == nil {
			t.Errorf("%s: the system's authorities would be trusted", name)
		}
	}
}

// TestV057CertificateOfAnotherPurpose: a user's certificate is no server's, and
// neither is that of another purpose at the listeners for clients.
func TestV057CertificateOfAnotherPurpose(t *testing.T) {
	t.Parallel()
	gateway, ca := newAuthority(t, "gateway"), newAuthority(t, "trust")
	asServer := func(a *authority, change ...func(*x509.Certificate)) GetCertificate {
		certificate, err := a.client(t, change...)(nil)
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, err }
	}
	named := func(c *x509.Certificate) { c.DNSNames = []string{tunnel} }
	client := TunnelClient(tunnel, gateway.pool(), ca.client(t))
	for name, get := range map[string]GetCertificate{
		"under the trust authority":   asServer(ca, named),
		"under the gateway authority": asServer(gateway, named),
	} {
		if out := meet(t, GatewayServer(get), client); out.client == nil {
			t.Errorf("a user certificate %s was accepted as a server's", name)
		}
	}
	direct := DirectServer(gateway.server(t, tunnel), ca.roots, domain, "prod")
	if out := meet(t, direct, client); out.server == nil {
		t.Error("a trust certificate was accepted on the direct vhost")
	}
}

// TestV060Tickets: where a client certificate may be asked for, no ticket is given
// out and none is taken, so that a later handshake is a full one and sees that the
// authority has retired or the session was revoked.
func TestV060Tickets(t *testing.T) {
	t.Parallel()
	gateway, ca, next := newAuthority(t, "gateway"), newAuthority(t, "trust"), newAuthority(t, "trust")
	var pool atomic.Pointer[x509.CertPool]
	var checks atomic.Int32
	pool.Store(ca.pool())
	server := TunnelServer(gateway.server(t, tunnel), pool.Load, func(Identity) error { checks.Add(1); return nil }, domain)
	client := TunnelClient(tunnel, gateway.pool(), ca.client(t))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(10)

	// A ticket of another listener of the same process, for the same name.
	if out := meet(t, GatewayServer(gateway.server(t, tunnel)), client); out.client != nil {
		t.Fatal(out.client)
	}
	if _, ok := client.ClientSessionCache.Get(tunnel); !ok {
		t.Fatal("the test is void: the gateway's listener gave no ticket")
	}
	for i := range 3 {
		out := meet(t, server, client)
		if out.server != nil || out.client != nil {
			t.Fatal(out.server, out.client)
		}
		if out.serverState.DidResume || checks.Load() != int32(i+1) {
			t.Errorf("handshake %d: resumed %t, %d checks", i, out.serverState.DidResume, checks.Load())
		}
	}
	pool.Store(next.pool())
	if out := meet(t, server, client); out.server == nil {
		t.Error("accepted under an authority that has retired")
	}
	for name, config := range map[string]*tls.Config{
		"stream": StreamServer(nil, nil), "direct": DirectServer(nil, ca.roots, domain, "prod"), "tunnel": server,
	} {
		if !config.SessionTicketsDisabled {
			t.Errorf("%s: hands out tickets", name)
		}
	}
}

// TestStreamServer: the key exchange keeps to the groups that it was given.
func TestStreamServer(t *testing.T) {
	t.Parallel()
	gateway := newAuthority(t, "gateway")
	server := StreamServer(gateway.server(t, "control"), []tls.CurveID{tls.CurveP384})
	out := meet(t, server, ControlClient(gateway.pool()))
	if out.server != nil || out.client != nil || out.serverState.CurveID != tls.CurveP384 {
		t.Errorf("server %v, client %v, group %v", out.server, out.client, out.serverState.CurveID)
	}
	if protocol := out.clientState.NegotiatedProtocol; protocol != "h2" {
		t.Errorf("protocol %q", protocol)
	}
}

// TestDirectServer: a kubeconfig certificate of this cluster, or none.
func TestDirectServer(t *testing.T) {
	t.Parallel()
	const name = "prod.direct.example.com"
	cluster, ca := newAuthority(t, "cluster"), newAuthority(t, "kubeconfig")
	server := DirectServer(cluster.server(t, name), ca.roots, domain, "prod")
	of := func(a *authority, c wire.ClusterName) func(*tls.Config) {
		get := a.client(t, func(template *x509.Certificate) { *template = *kubeconfigTemplate(t, c) })
		return func(config *tls.Config) { config.GetClientCertificate = get }
	}
	for what, test := range map[string]struct {
		change func(*tls.Config)
		ok     bool
	}{
		"none":              {func(*tls.Config) {}, true},
		"this cluster":      {of(ca, "prod"), true},
		"another cluster":   {of(ca, "dev"), false},
		"another authority": {of(cluster, "prod"), false},
	} {
		client := UpstreamClient(cluster.pool(), name, "http/1.1")
		test.change(client)
		if out := meet(t, server, client); (out.server == nil) != test.ok {
			t.Errorf("%s: %v", what, out.server)
		}
	}
}

// TestVersions: TLS 1.3 everywhere but toward the upstream and the issuer, and
// there nothing that is weak in TLS 1.2.
func TestVersions(t *testing.T) {
	t.Parallel()
	pool := func() *x509.CertPool { return nil }
	for name, config := range map[string]*tls.Config{
		"GatewayServer": GatewayServer(nil), "TunnelServer": TunnelServer(nil, pool, nil, domain),
		"StreamServer": StreamServer(nil, nil), "DirectServer": DirectServer(nil, pool, domain, "prod"),
		"GatewayClient": GatewayClient("gw", "", nil), "pinned GatewayClient": GatewayClient("gw", "pin", nil),
		"TunnelClient": TunnelClient(tunnel, nil, nil), "ControlClient": ControlClient(nil),
	} {
		if config.MinVersion != tls.VersionTLS13 {
			t.Errorf("%s: version %s is allowed", name, tls.VersionName(config.MinVersion))
		}
		if config.InsecureSkipVerify != (name == "pinned GatewayClient") {
			t.Errorf("%s: InsecureSkipVerify is %t", name, config.InsecureSkipVerify)
		}
		if config.InsecureSkipVerify && config.VerifyConnection == nil {
			t.Errorf("%s: nobody verifies", name)
		}
	}
	for name, config := range map[string]*tls.Config{"UpstreamClient": UpstreamClient(nil, ""), "IssuerClient": IssuerClient(nil)} {
		if config.MinVersion != tls.VersionTLS12 || config.InsecureSkipVerify {
			t.Errorf("%s: %s, InsecureSkipVerify %t", name, tls.VersionName(config.MinVersion), config.InsecureSkipVerify)
		}
		for _, suite := range config.CipherSuites {
			if suite := tls.CipherSuiteName(suite); !strings.HasPrefix(suite, "TLS_ECDHE_") || strings.Contains(suite, "_CBC_") {
				t.Errorf("%s: %s is allowed", name, suite)
			}
		}
		if len(config.CipherSuites) == 0 {
			t.Errorf("%s: any suite is allowed", name)
		}
	}
}
