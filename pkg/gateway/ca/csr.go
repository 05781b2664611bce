package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxRequest bounds a certificate request, in bytes of PEM.
const maxRequest = 8 << 10

// ParseRequest returns the key of a PKCS #10 request (PEM) whose signature
// proves that the sender holds it. Names, attributes and extensions in the
// request are ignored on purpose: nothing of them reaches a certificate.
func ParseRequest(text string) (*ecdsa.PublicKey, error) {
	if len(text) > maxRequest {
		return nil, fmt.Errorf("certificate request has more than %d bytes", maxRequest)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("certificate request is not PEM of type CERTIFICATE REQUEST")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("certificate request holds more than one")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %v", err)
	}
	// The key first: the signature of an RSA key of unusual size or exponent
	// is not even looked at.
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: the key is not P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errors.New("certificate request: its signature does not prove possession of the key")
	}
	return key, nil
}
