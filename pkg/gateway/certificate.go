package gateway

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// certificateFile is the pair that gw.DOMAIN shows, read from files that
// something else renews. A pair that does not fit together is never shown: the
// old one stays (TestV202).
type certificateFile struct {
	certFile, keyFile string
	pair              atomic.Pointer[tls.Certificate]
}

func openCertificateFile(certFile, keyFile string) (*certificateFile, error) {
	f := &certificateFile{certFile: certFile, keyFile: keyFile}
	return f, f.load()
}

func (f *certificateFile) load() error {
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %v", f.certFile, f.keyFile, err)
	}
	f.pair.Store(&pair)
	return nil
}

func (f *certificateFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.pair.Load(), nil
}
