package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// certificatePeriod is how often the files are looked at.
const certificatePeriod = 2 * time.Second

// certificateFile is the pair that gw.DOMAIN shows, read from files that
// something else renews. A pair that does not fit together is never shown: the
// old one stays (TestV202).
type certificateFile struct {
	certFile, keyFile string
	pair              atomic.Pointer[tls.Certificate]
	seen              [2]fileVersion
}

// fileVersion tells one content of a file from another, cheaply.
type fileVersion struct {
	modified time.Time
	size     int64
}

func openCertificateFile(certFile, keyFile string) (*certificateFile, error) {
	f := &certificateFile{certFile: certFile, keyFile: keyFile}
	f.changed()
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *certificateFile) load() error {
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %v", f.certFile, f.keyFile, err)
	}
	f.pair.Store(&pair)
	return nil
}

// changed reports whether the files look different from the last time.
func (f *certificateFile) changed() bool {
	var now [2]fileVersion
	for i, name := range []string{f.certFile, f.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			continue // in the middle of being replaced
		}
		now[i] = fileVersion{info.ModTime(), info.Size()}
	}
	changed := now != f.seen
	f.seen = now
	return changed
}

func (f *certificateFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.pair.Load(), nil
}

// watchCertificate loads the pair when its files change.
func (g *Gateway) watchCertificate(ctx context.Context) {
	tick := time.NewTicker(certificatePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if g.certificate.changed() {
				_ = g.reloadCertificate()
			}
		}
	}
}

func (g *Gateway) reloadCertificate() error {
	err := g.certificate.load()
	g.metrics.Reload("certificate", err)
	g.metrics.Condition("gateway", "CertificateStale", err != nil)
	if err != nil {
		g.log.Error("the certificate was not loaded, the old one stays", "error", err)
	} else {
		g.log.Info("certificate loaded")
	}
	return err
}
