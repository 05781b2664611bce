package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/files"
)

// certificateFile is the pair that gw.DOMAIN shows, read from files that
// something else renews. A pair that does not fit together, that nobody would
// accept now, or that is of another name is never shown: the old one stays
// (TestV202).
type certificateFile struct {
	certFile, keyFile string
	names             []string // under which laptops know gw.DOMAIN
	now               func() time.Time
	pair              atomic.Pointer[tls.Certificate]
}

// open reads the files and refuses at start what load refuses later.
func (f *certificateFile) open(ctx context.Context) error {
	r, err := files.Read(ctx, f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return f.load(r.Data)
}

// load takes the content of certFile and keyFile.
func (f *certificateFile) load(data [][]byte) error {
	pair, err := tls.X509KeyPair(data[0], data[1])
	if err == nil {
		err = f.judge(&pair)
	}
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %v", f.certFile, f.keyFile, err)
	}
	f.pair.Store(&pair)
	return nil
}

func (f *certificateFile) judge(pair *tls.Certificate) error {
	leaf, now := pair.Leaf, f.now()
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it has expired on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("it is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case !slices.ContainsFunc(f.names, func(name string) bool { return leaf.VerifyHostname(name) == nil }):
		return errors.New("it is for none of the names of this gateway: " + strings.Join(f.names, ", "))
	}
	return nil
}

func (f *certificateFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.pair.Load(), nil
}
