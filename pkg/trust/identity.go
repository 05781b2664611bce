package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// Identity is what a trust certificate says: this session of this user runs on
// this device key, and this proof key may speak for it.
type Identity struct {
	TrustDomain string
	Session     wire.SessionID
	// Proof is the thumbprint of the key that signs peer proofs.
	Proof wire.Thumbprint
	User  wire.User
	// Device and Key are derived from the certificate's public key, the device
	// key; TrustTemplate does not read them.
	Device wire.DeviceID
	Key    wire.Thumbprint
	// Serial is lower-case hex, without leading zeros.
	Serial    string
	NotBefore time.Time
	NotAfter  time.Time // inclusive
}

// userExtension marks the non-critical extension that holds the user as JSON.
// An arc under 2.25 is a UUID's value; Go's asn1 holds arcs below 2^31 only, so
// this one has its upper bits zero, as no generated UUID has.
var userExtension = asn1.ObjectIdentifier{2, 25, 1714923367}

// TrustTemplate is the certificate that states id. The authority's own
// certificate and the device's public key are added by x509.CreateCertificate.
// It refuses an identity that ParseTrustCertificate would not read back.
func TrustTemplate(id Identity, notBefore, notAfter time.Time, serial *big.Int) (*x509.Certificate, error) {
	if err := id.validate(); err != nil {
		return nil, fmt.Errorf("trust certificate: %v", err)
	}
	user, err := json.Marshal(id.User)
	if err != nil {
		return nil, fmt.Errorf("trust certificate: %v", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: string(id.User.Name)},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{
			{Scheme: scheme, Host: id.TrustDomain, Path: "/trust/" + string(id.Session)},
			{Scheme: scheme, Host: id.TrustDomain, Path: "/proof/" + string(id.Proof)},
		},
		ExtraExtensions:       []pkix.Extension{{Id: userExtension, Value: user}},
		BasicConstraintsValid: true,
	}, nil
}

// ParseTrustCertificate reads the identity in cert, whose chain it does not
// look at: use VerifyTrustChain for a certificate that a peer has shown.
func ParseTrustCertificate(cert *x509.Certificate, trustDomain string) (Identity, error) {
	id, err := parseTrust(cert, trustDomain)
	if err != nil {
		return Identity{}, fmt.Errorf("trust certificate: %v", err)
	}
	return id, nil
}

func parseTrust(cert *x509.Certificate, trustDomain string) (Identity, error) {
	uris, err := leafURIs(cert)
	if err != nil {
		return Identity{}, err
	}
	if len(uris) != 2 {
		return Identity{}, fmt.Errorf("%d names, want one trust and one proof URI", len(uris))
	}
	id := Identity{
		TrustDomain: trustDomain,
		Serial:      cert.SerialNumber.Text(16),
		NotBefore:   cert.NotBefore,
		NotAfter:    cert.NotAfter,
	}
	base := scheme + "://" + trustDomain
	for _, uri := range uris {
		if rest, ok := strings.CutPrefix(uri, base+"/trust/"); ok && id.Session == "" {
			id.Session = wire.SessionID(rest)
		} else if rest, ok := strings.CutPrefix(uri, base+"/proof/"); ok && id.Proof == "" {
			id.Proof = wire.Thumbprint(rest)
		} else {
			return Identity{}, fmt.Errorf("unexpected or repeated name %q", uri)
		}
	}
	if id.User, err = userOf(cert); err != nil {
		return Identity{}, err
	}
	if id.Key, err = Thumbprint(cert.PublicKey); err != nil {
		return Identity{}, err
	}
	id.Device = DeviceID(id.Key)
	return id, id.validate()
}

func userOf(cert *x509.Certificate) (wire.User, error) {
	var value []byte
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(userExtension) {
			continue
		}
		if value != nil {
			return wire.User{}, errors.New("two user extensions")
		}
		value = extension.Value
	}
	var user wire.User
	if value == nil {
		return user, errors.New("no user extension")
	}
	if err := json.Unmarshal(value, &user); err != nil {
		return user, fmt.Errorf("user extension: %v", err)
	}
	// One spelling only: what we read is what we would have written.
	if again, err := json.Marshal(user); err != nil || string(again) != string(value) {
		return user, errors.New("user extension is not in canonical form")
	}
	return user, nil
}

func (id Identity) validate() error {
	switch {
	case !validDomain(id.TrustDomain):
		return fmt.Errorf("trust domain %q is not a lower-case DNS name", id.TrustDomain)
	case !validToken(string(id.Session), 16, 64):
		return fmt.Errorf("session %q is not 16 to 64 letters and digits", id.Session)
	case !validThumbprint(id.Proof):
		return fmt.Errorf("proof %q is not a thumbprint", id.Proof)
	case id.User.Issuer == "" || id.User.Subject == "" || id.User.Name == "":
		return errors.New("user without issuer, subject or name")
	}
	return nil
}

func validThumbprint(t wire.Thumbprint) bool { return DeviceID(t) != "" }

// validToken reports whether s is made of letters and digits, at least low and
// at most high of them: nothing that a URI would spell in two ways.
func validToken(s string, low, high int) bool {
	if len(s) < low || len(s) > high {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// validDomain reports whether s is a DNS name in the one spelling we accept.
func validDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
