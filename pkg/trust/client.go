package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// GetClientCertificate is tls.Config's: it chooses a client's leaf.
type GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

// GatewayClient is for calling gw.: first contact included. Without a pin the
// server needs a certificate under systemRoots (nil: the system's). With a pin,
// the SPKIPin of the gateway's own server CA, it may also show a leaf together
// with a CA certificate of that very key: the pin decides then, and the rest,
// names, times and usages, is verified as always.
//
// An unknown authority is an *UnknownAuthorityError; without a pin use Explain.
func GatewayClient(serverName, pin string, systemRoots *x509.CertPool) *tls.Config {
	config := client(serverName, systemRoots, "h2", "http/1.1")
	if pin == "" {
		return config
	}
	// Here crypto/tls cannot verify, for we know the root's hash and not the
	// root. VerifyConnection does all of it, is called in every handshake also
	// when a session is resumed, and fails closed.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return verifyPinned(state.PeerCertificates, serverName, pin, systemRoots)
	}
	return config
}

func verifyPinned(chain []*x509.Certificate, serverName, pin string, systemRoots *x509.CertPool) error {
	if len(chain) == 0 || serverName == "" {
		return errors.New("no certificate was shown, or no server name expected")
	}
	options := x509.VerifyOptions{
		DNSName:     serverName,
		CurrentTime: time.Now(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	options.Roots = systemRoots
	for _, cert := range chain[1:] {
		if cert.IsCA && SPKIPin(cert) == pin {
			// Chain verification proves that this key signed the leaf; a copy of
			// the CA certificate next to a stranger's leaf proves nothing.
			options.Roots = x509.NewCertPool()
			options.Roots.AddCert(cert)
			break
		}
	}
	err := verify(chain, options)
	var unknown *UnknownAuthorityError
	if errors.As(err, &unknown) {
		unknown.Pinned = true
	}
	return err
}

// TunnelClient is for calling tunnel. under the gateway's own CA, with the trust
// certificate. HTTP/2 only.
func TunnelClient(serverName string, roots *x509.CertPool, get GetClientCertificate) *tls.Config {
	config := client(serverName, ownRoots(roots), "h2")
	config.GetClientCertificate = get
	return config
}

// ControlClient is for the TLS inside the stream to control.
func ControlClient(roots *x509.CertPool) *tls.Config {
	return client(wire.ControlName, ownRoots(roots), "h2", "http/1.1")
}

// IssuerClient is for calling the OIDC issuer; nil roots are the system's.
func IssuerClient(roots *x509.CertPool) *tls.Config {
	return outward(client("", roots, "h2", "http/1.1"))
}

// UpstreamClient is for the kube part's leg to its kube-apiserver. protocols are
// ALPN's; upgrades need http/1.1 alone.
func UpstreamClient(roots *x509.CertPool, serverName string, protocols ...string) *tls.Config {
	return outward(client(serverName, roots, protocols...))
}

// outward lets config speak TLS 1.2, with forward secrecy and authenticated
// ciphers alone (RFC 9325, 4.2), to servers that are not ours to choose: many an
// identity provider and old API server know nothing newer.
func outward(config *tls.Config) *tls.Config {
	config.MinVersion = tls.VersionTLS12
	config.CipherSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	return config
}

func client(serverName string, roots *x509.CertPool, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		RootCAs:    roots,
		NextProtos: protocols,
	}
}

// ownRoots keeps a missing pool from meaning the system's roots, where only our
// own authority can be right.
func ownRoots(roots *x509.CertPool) *x509.CertPool {
	if roots == nil {
		return x509.NewCertPool()
	}
	return roots
}
