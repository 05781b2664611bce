package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kube-zt/zt/test/env"
)

// TestMain demands after all tests that nothing of theirs runs, and that no file or
// socket is open which was not before.
func TestMain(m *testing.M) {
	before := openFiles()
	code := env.Main(m)
	if code == 0 {
		code = leaks(before)
	}
	os.Exit(code)
}

// leaks is 1 when something is left. TLS takes 5 s to say goodbye to somebody who
// does not listen.
func leaks(before map[string]string) int {
	deadline := time.Now().Add(10 * time.Second)
	err := goleak.Find()
	for err != nil && time.Now().Before(deadline) {
		err = goleak.Find()
	}
	open := openFiles()
	ends := map[string]int{}
	for _, what := range open {
		ends[what]++
	}
	for fd, what := range open {
		// Go's own are those to poll with, and pipes of which both ends are here, to
		// splice through.
		own := strings.HasPrefix(what, "anon_inode:") || strings.HasPrefix(what, "pipe:") && ends[what] == 2
		if _, ok := before[fd]; !ok && !own {
			err = errors.Join(err, fmt.Errorf("left open: %s %s", fd, what))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// openFiles are this process's descriptors and what they are, where /proc tells.
func openFiles() map[string]string {
	open := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if what, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil { // the directory's own is gone by now
			open[entry.Name()] = what
		}
	}
	return open
}

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
