package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// UnknownAuthorityError says that a server's certificate stands under an
// authority that we do not know. A person may compare Fingerprint with the one
// that the gateway's administrator was shown.
type UnknownAuthorityError struct {
	ServerName string
	// Fingerprint is the SPKIPin of the highest certificate that was shown and
	// has really signed the server's, and Subject its name, which a stranger chose.
	Fingerprint string
	Subject     string
	// Pinned says that a pin was expected and did not match.
	Pinned bool

	cause error
}

func (e *UnknownAuthorityError) Error() string {
	if e.Pinned {
		return fmt.Sprintf("%s shows another authority than the pinned one: sha256=%s", e.ServerName, e.Fingerprint)
	}
	return fmt.Sprintf("%s shows an unknown authority: sha256=%s", e.ServerName, e.Fingerprint)
}

// Unwrap returns the error of crypto/x509.
func (e *UnknownAuthorityError) Unwrap() error { return e.cause }

// ClockError says that a certificate would do at another time. Often the clock
// is wrong and not the certificate.
type ClockError struct {
	Subject             string
	Now                 time.Time
	NotBefore, NotAfter time.Time
}

// NotYetValid reports whether the certificate's time is still to come.
func (e *ClockError) NotYetValid() bool { return e.Now.Before(e.NotBefore) }

func (e *ClockError) Error() string {
	if e.NotYetValid() {
		return fmt.Sprintf("certificate of %q is not valid before %s, and here it is %s",
			e.Subject, e.NotBefore.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("certificate of %q expired at %s, and here it is %s",
		e.Subject, e.NotAfter.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
}

// Explain returns the typed error inside an error of a client's handshake,
// UnknownAuthorityError or ClockError, if there is one; else err itself.
// Configurations that leave verification to crypto/tls need it.
func Explain(err error, serverName string) error {
	var unknown *UnknownAuthorityError
	var clock *ClockError
	if errors.As(err, &unknown) || errors.As(err, &clock) {
		return err
	}
	var verification *tls.CertificateVerificationError
	if !errors.As(err, &verification) || len(verification.UnverifiedCertificates) == 0 {
		return err
	}
	return classify(verification.Err, verification.UnverifiedCertificates, serverName, time.Now())
}

// classify gives the errors that a person can act on their types.
func classify(err error, chain []*x509.Certificate, serverName string, now time.Time) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return &ClockError{
			Subject:   invalid.Cert.Subject.String(),
			Now:       now,
			NotBefore: invalid.Cert.NotBefore,
			NotAfter:  invalid.Cert.NotAfter,
		}
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) && serverName != "" {
		top := authorityOf(chain, now)
		return &UnknownAuthorityError{
			ServerName:  serverName,
			Fingerprint: SPKIPin(top),
			Subject:     top.Subject.String(),
			cause:       err,
		}
	}
	return err
}

// authorityOf returns the highest certificate of chain under which its leaf
// verifies, so that nobody can show the fingerprint of an authority that he has
// only copied. If there is none, it is the leaf itself.
func authorityOf(chain []*x509.Certificate, now time.Time) *x509.Certificate {
	for i := len(chain) - 1; i > 0; i-- {
		options := x509.VerifyOptions{
			Roots:       x509.NewCertPool(),
			CurrentTime: now,
			KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}
		options.Roots.AddCert(chain[i])
		if verifyUnder(chain, options) == nil {
			return chain[i]
		}
	}
	return chain[0]
}
