package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// KubeconfigIdentity is what a kubeconfig certificate says: this user, at this
// cluster's direct vhost only.
type KubeconfigIdentity struct {
	TrustDomain string
	Cluster     wire.ClusterName
	User        wire.Username
	// Serial is lower-case hex, without leading zeros.
	Serial    string
	Key       wire.Thumbprint
	NotBefore time.Time
	NotAfter  time.Time // inclusive
}

// KubeconfigTemplate is the certificate that states id; TrustTemplate's rules hold.
func KubeconfigTemplate(id KubeconfigIdentity, notBefore, notAfter time.Time, serial *big.Int) (*x509.Certificate, error) {
	id.Serial = serial.Text(16)
	if err := id.validate(); err != nil {
		return nil, fmt.Errorf("kubeconfig certificate: %v", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: string(id.User)},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{
			{Scheme: scheme, Host: id.TrustDomain, Path: "/kubeconfig/" + string(id.Cluster) + "/" + id.Serial},
		},
		BasicConstraintsValid: true,
	}, nil
}

// VerifyKubeconfigChain returns the identity of chain[0] if chain, leaf first,
// leads to roots at the time now and the leaf is for cluster.
func VerifyKubeconfigChain(chain []*x509.Certificate, roots *x509.CertPool, trustDomain string, cluster wire.ClusterName, now time.Time) (KubeconfigIdentity, error) {
	if err := verifyClient(chain, roots, now); err != nil {
		return KubeconfigIdentity{}, fmt.Errorf("kubeconfig certificate: %w", err)
	}
	id, err := parseKubeconfig(chain[0], trustDomain)
	if err == nil && id.Cluster != cluster {
		err = errors.New("is for another cluster")
	}
	if err != nil {
		return KubeconfigIdentity{}, fmt.Errorf("kubeconfig certificate: %v", err)
	}
	return id, nil
}

func parseKubeconfig(cert *x509.Certificate, trustDomain string) (KubeconfigIdentity, error) {
	uris, err := leafURIs(cert)
	if err != nil {
		return KubeconfigIdentity{}, err
	}
	if len(uris) != 1 {
		return KubeconfigIdentity{}, fmt.Errorf("%d names, want one kubeconfig URI", len(uris))
	}
	rest, ok := strings.CutPrefix(uris[0], scheme+"://"+trustDomain+"/kubeconfig/")
	cluster, serial, two := strings.Cut(rest, "/")
	if !ok || !two {
		return KubeconfigIdentity{}, fmt.Errorf("unexpected name %q", uris[0])
	}
	id := KubeconfigIdentity{
		TrustDomain: trustDomain,
		Cluster:     wire.ClusterName(cluster),
		User:        wire.Username(cert.Subject.CommonName),
		Serial:      serial,
		NotBefore:   cert.NotBefore,
		NotAfter:    cert.NotAfter,
	}
	if serial != cert.SerialNumber.Text(16) {
		return KubeconfigIdentity{}, errors.New("name and serial number differ")
	}
	if id.Key, err = Thumbprint(cert.PublicKey); err != nil {
		return KubeconfigIdentity{}, err
	}
	return id, id.validate()
}

func (id KubeconfigIdentity) validate() error {
	switch {
	case !validDomain(id.TrustDomain):
		return fmt.Errorf("trust domain %q is not a lower-case DNS name", id.TrustDomain)
	case !validLabel(string(id.Cluster)):
		return fmt.Errorf("cluster %q is not an RFC 1123 label", id.Cluster)
	case id.User == "":
		return errors.New("no user")
	}
	return nil
}
