package login

import (
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/kube-zt/zt/pkg/trust"
)

// Limits of one request to the provider.
const (
	maxBody        = 1<<20 - 1 // bytes, after decompression; x/oauth2 goes on with a body cut at 1 MiB
	maxHeader      = 64 << 10
	requestTimeout = 30 * time.Second // from the first byte out to the last byte in
	maxRedirects   = 3
)

var errTooLong = errors.New("the provider's answer is longer than 1 MiB")

// newTransport trusts roots, or the system's where roots is nil. It honours the
// proxy of the environment.
func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        trust.IssuerClient(roots),
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
	}
}

// checkRedirect lets documents move within their own host. A request with a
// code, a verifier or a token goes nowhere else, and nothing goes to another host.
func checkRedirect(r *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet:
		return untrusted("%s redirects a request that carries a secret", first.URL.Redacted())
	case r.URL.Scheme != first.URL.Scheme, r.URL.Host != first.URL.Host:
		return untrusted("%s redirects to another host, %q", first.URL.Redacted(), r.URL.Host)
	case len(via) > maxRedirects:
		return untrusted("%s redirects without end", first.URL.Redacted())
	}
	return nil
}

func parsePool(pem []byte) (*x509.CertPool, error) {
	if len(pem) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in the issuer's ca")
	}
	return pool, nil
}
