package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

// scheme of every URI that zt puts into a certificate.
const scheme = "zt"

var (
	subjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	extendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	// clientAuthOnly is the one value of the extended key usage that a client
	// leaf may have: SEQUENCE { id-kp-clientAuth }.
	clientAuthOnly = []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02}
)

// uriTag is GeneralName's uniformResourceIdentifier (RFC 5280, 4.2.1.6).
const uriTag = 6

// leafURIs checks what all client leaves of zt have in common and returns their
// names as they stand in the certificate. x509.Certificate.URIs would not do:
// it holds parsed URLs, and two spellings of a name parse alike.
func leafURIs(cert *x509.Certificate) ([]string, error) {
	if cert.IsCA || !cert.BasicConstraintsValid {
		return nil, errors.New("is a CA or does not say that it is none")
	}
	if cert.KeyUsage != x509.KeyUsageDigitalSignature {
		return nil, errors.New("key usage is not digital signature alone")
	}
	if err := checkKey(cert.PublicKey); err != nil {
		return nil, err
	}
	var names []byte
	for _, extension := range cert.Extensions {
		switch {
		case extension.Id.Equal(extendedKeyUsage):
			if !bytes.Equal(extension.Value, clientAuthOnly) {
				return nil, errors.New("extended key usage is not clientAuth alone")
			}
		case extension.Id.Equal(subjectAltName):
			names = extension.Value
		}
	}
	if len(cert.ExtKeyUsage) == 0 {
		return nil, errors.New("no extended key usage")
	}
	var values []asn1.RawValue
	if rest, err := asn1.Unmarshal(names, &values); err != nil || len(rest) != 0 {
		return nil, errors.New("no subject alternative names")
	}
	uris := make([]string, len(values))
	for i, value := range values {
		if value.Class != asn1.ClassContextSpecific || value.Tag != uriTag || value.IsCompound {
			return nil, fmt.Errorf("name %d is not a URI", i+1)
		}
		uris[i] = string(value.Bytes)
	}
	return uris, nil
}
