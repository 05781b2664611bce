package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// GetCertificate is tls.Config's: it chooses a server's leaf.
type GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// GatewayServer is for gw.: strangers may call, no client certificate is asked for.
func GatewayServer(get GetCertificate) *tls.Config {
	return server(get, "h2", "http/1.1")
}

// TunnelServer is for tunnel.: nobody gets through the handshake without a
// trust certificate of trustDomain under roots() for which verify, the deny
// list, returns nil. HTTP/2 only. roots and verify are called in each handshake,
// concurrently.
func TunnelServer(get GetCertificate, roots func() *x509.CertPool, verify func(Identity) error, trustDomain string) *tls.Config {
	config := server(get, "h2")
	requireClient(config, tls.RequireAndVerifyClientCert, roots, func(state tls.ConnectionState) error {
		// crypto/tls lets HTTP/1.1 pass where only h2 is offered.
		if state.NegotiatedProtocol != "h2" {
			return errors.New("no application protocol but h2 is spoken here")
		}
		id, err := VerifyTrustChain(state.PeerCertificates, roots(), trustDomain, time.Now())
		if err != nil {
			return err
		}
		return verify(id)
	})
	return config
}

// StreamServer is for the inner TLS of a cluster or of control, whose peer is
// known by its proof and not by a certificate. groups limits the key exchange to
// what the verified ClientHello has key shares for; nil leaves Go's defaults.
func StreamServer(get GetCertificate, groups []tls.CurveID) *tls.Config {
	config := server(get, "h2", "http/1.1")
	config.CurvePreferences = groups
	config.SessionTicketsDisabled = true
	return config
}

// DirectServer is for a cluster's direct vhost: stock clients may show a
// kubeconfig certificate of cluster under roots(), or none and a token.
func DirectServer(get GetCertificate, roots func() *x509.CertPool, trustDomain string, cluster wire.ClusterName) *tls.Config {
	config := server(get, "h2", "http/1.1")
	requireClient(config, tls.VerifyClientCertIfGiven, roots, func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return nil
		}
		_, err := VerifyKubeconfigChain(state.PeerCertificates, roots(), trustDomain, cluster, time.Now())
		return err
	})
	return config
}

func server(get GetCertificate, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: get,
		NextProtos:     protocols,
	}
}

// requireClient asks for a client certificate. crypto/tls verifies it against
// the pool of the moment, and check looks at the rest. There are no tickets: a
// resumed session would bring an identity along that nobody verified today.
func requireClient(config *tls.Config, how tls.ClientAuthType, roots func() *x509.CertPool, check func(tls.ConnectionState) error) {
	config.SessionTicketsDisabled = true
	config.ClientAuth = how
	config.ClientCAs = x509.NewCertPool()
	config.VerifyConnection = check
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := config.Clone()
		current.GetConfigForClient = nil
		// nil would mean the system's roots.
		if pool := roots(); pool != nil {
			current.ClientCAs = pool
		}
		return current, nil
	}
}
