package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/kube-zt/zt/test/env"
)

func TestMain(m *testing.M) { os.Exit(env.Main(m)) }

func certificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// testTransport trusts one authority.
func testTransport(caPEM []byte) *http.Transport {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		panic(fmt.Sprintf("no certificate in %q", caPEM))
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
}
