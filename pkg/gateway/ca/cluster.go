package ca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kube-zt/zt/pkg/wire"
)

// ClusterAuthority is the server authority of one cluster: ten years, good for
// that cluster's own names only, pinned by kubeconfigs.
type ClusterAuthority struct {
	// UID was drawn when the authority was made. Tokens and proofs for the
	// cluster name it, so a cluster that is made anew under an old name accepts
	// none of the old ones.
	UID wire.ClusterUID
	// CAPEM is the authority's certificate.
	CAPEM []byte
	// Leaf is a rotating server certificate for CLUSTER.DOMAIN and
	// CLUSTER.direct.DOMAIN.
	Leaf ServerLeaf

	authority *authority
}

// label is an RFC 1123 label. The name becomes a directory, so it is checked
// here again and not only where manifests are read.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Cluster returns the authority of a cluster and makes it when it is first
// asked for. A cluster that goes away keeps its authority on disk, so its
// laptops' kubeconfigs hold when it comes back.
func (a *Authorities) Cluster(name wire.ClusterName) (*ClusterAuthority, error) {
	if !label.MatchString(string(name)) {
		return nil, fmt.Errorf("cluster authority: %q is not a cluster name", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.clusters[name]; ok {
		return c, nil
	}
	dir := filepath.Join(a.dir, "clusters", string(name))
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := secretDirectory(d); err != nil {
			return nil, fmt.Errorf("authority of cluster %s: %w", name, err)
		}
	}
	names := []string{
		string(name) + "." + a.domain,
		string(name) + "." + wire.DirectLabel + "." + a.domain,
	}
	authority, err := openAuthority(dir, "cluster", constraints{
		name:        fmt.Sprintf("zt cluster CA %s %s", name, a.trustDomain),
		usage:       x509.ExtKeyUsageServerAuth,
		domains:     names,
		noAddresses: true,
	}, a.now())
	if err != nil {
		return nil, fmt.Errorf("authority of cluster %s: %w", name, err)
	}
	uid, err := openUID(filepath.Join(dir, "uid"))
	if err != nil {
		return nil, fmt.Errorf("authority of cluster %s: %w", name, err)
	}
	leaf := &rotatingLeaf{authority: authority, names: names, now: a.now}
	c := &ClusterAuthority{UID: uid, CAPEM: certificatePEM(authority.cert), Leaf: leaf.get, authority: authority}
	a.clusters[name] = c
	return c, nil
}

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var uidForm = regexp.MustCompile(`^[a-z2-7]{26}$`)

// openUID reads a cluster's UID or draws one: 128 random bits in base32.
func openUID(path string) (wire.ClusterUID, error) {
	data, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return "", fmt.Errorf("draw uid: %v", err)
		}
		uid := base32Lower.EncodeToString(b[:])
		return wire.ClusterUID(uid), create(path, []byte(uid+"\n"))
	}
	if err != nil {
		return "", err
	}
	uid := strings.TrimSpace(string(data))
	if !uidForm.MatchString(uid) {
		return "", fmt.Errorf("%s: not a cluster uid", path)
	}
	return wire.ClusterUID(uid), nil
}
