package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
)

func certificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	answer := alice.get("/api/v1/namespaces/dev/pods")
	t.Logf("%+v", answer)
	t.Logf("%+v", r.upstream.one())
	for _, rec := range r.records() {
		t.Logf("%+v", rec)
	}
}
