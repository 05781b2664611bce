package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// VerifyTrustChain returns the identity of chain[0] if chain, leaf first, leads
// to roots at the time now and the leaf is a trust certificate of trustDomain.
// The error is a *ClockError if nothing but the time is wrong.
func VerifyTrustChain(chain []*x509.Certificate, roots *x509.CertPool, trustDomain string, now time.Time) (Identity, error) {
	if err := verifyClient(chain, roots, now); err != nil {
		return Identity{}, fmt.Errorf("trust certificate: %w", err)
	}
	return ParseTrustCertificate(chain[0], trustDomain)
}

// verifyClient verifies a chain for client authentication. A nil pool is
// refused: x509 would take the system's roots in its place.
func verifyClient(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("none was shown")
	}
	if roots == nil {
		return errors.New("no authorities are configured")
	}
	return verify(chain, x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// verify verifies chain, leaf first, and gives the error its type.
func verify(chain []*x509.Certificate, options x509.VerifyOptions) error {
	if err := verifyUnder(chain, options); err != nil {
		return classify(err, chain, options.DNSName, options.CurrentTime)
	}
	return nil
}

func verifyUnder(chain []*x509.Certificate, options x509.VerifyOptions) error {
	options.Intermediates = x509.NewCertPool()
	for _, cert := range chain[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(options)
	return err
}
