package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// serverBackdate lets laptops whose clock is behind still connect; what
	// they are then told is the gateway's time.
	serverBackdate = 24 * time.Hour
	// serverLifetime of a leaf, from its making. It is made again at half of
	// it, so a copied leaf key is worth two days and a stopped clock is noticed.
	serverLifetime = 48 * time.Hour
)

// ServerLeaf is a source of server certificates, as tls.Config.GetCertificate
// wants it. It may be called concurrently and blocks only while a key is made.
type ServerLeaf func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// rotatingLeaf makes a leaf when it is first asked for and again when the last
// one is half through its life.
type rotatingLeaf struct {
	authority *authority
	names     []string
	now       func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	made    time.Time
}

func (l *rotatingLeaf) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	// A clock that went back before the making is a reason to make another,
	// too: the old one might not be valid yet by then.
	if l.current != nil && !now.Before(l.made) && now.Before(l.made.Add(serverLifetime/2)) {
		return l.current, nil
	}
	leaf, err := l.authority.serverLeaf(l.names, now)
	if err != nil {
		if l.current != nil && now.Before(l.current.Leaf.NotAfter) && now.After(l.current.Leaf.NotBefore) {
			return l.current, nil // the old one still holds; the next caller tries again
		}
		return nil, err
	}
	l.current, l.made = leaf, now
	return leaf, nil
}

// serverLeaf issues a key and certificate for names, which may be addresses.
// The chain ends with the authority's own certificate: it is what laptops pin.
func (a *authority) serverLeaf(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %v", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-serverBackdate).UTC(),
		NotAfter:     now.Add(serverLifetime).UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	cert, err := a.sign(template, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}
