package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kube-zt/zt/pkg/gateway/files"
)

// maxKeyFile bounds what is read of a key or certificate file, in bytes.
const maxKeyFile = 64 << 10

// secretDirectory makes dir (0700) or checks that nobody but its owner may
// enter it.
func secretDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make key directory %s: %v", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at key directory %s: %v", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("key directory %s is not a directory", dir)
	}
	return private(dir, info)
}

// private refuses what group or others may read, write or enter.
func private(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &LooseError{Path: path, Mode: mode}
	}
	return nil
}

// LooseError says that a file with keys is open to more than its owner.
type LooseError struct {
	Path string
	Mode fs.FileMode
}

func (e *LooseError) Error() string {
	return fmt.Sprintf("%s has mode %04o: keys must be readable by their owner alone (chmod go= %s)", e.Path, e.Mode, e.Path)
}

// readSecret reads a file that must be private. The mode is asked of the open
// file, so what was checked is what is read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %v", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if err := private(path, info); err != nil {
		return nil, err
	}
	return readAll(path, f)
}

func readAll(path string, f io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %v", path, err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, maxKeyFile)
	}
	return data, nil
}

// create writes a new file of mode 0600, whole or not at all, and never over
// another one: the link fails where the name is taken.
func create(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create %s: %v", path, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	if err == nil {
		err = files.SyncDirectory(dir)
	}
	if err != nil {
		return fmt.Errorf("create %s: %v", path, err)
	}
	return nil
}

const (
	pemKey         = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
	pemSeal        = "ZT SEAL KEY"
)

// onePEM decodes a file that must hold exactly one block of the given type.
func onePEM(path string, data []byte, blockType string) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != blockType {
		return nil, fmt.Errorf("%s: no PEM block of type %s", path, blockType)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fmt.Errorf("%s: more than one PEM block", path)
	}
	return block.Bytes, nil
}

// loadKey reads a P-256 key. It returns fs.ErrNotExist where there is none.
func loadKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	der, err := onePEM(path, data, pemKey)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// The cause could quote what it failed on; the path is enough.
		return nil, fmt.Errorf("%s: not a PKCS #8 private key", path)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s: not a P-256 key", path)
	}
	return key, nil
}

// loadOrCreateKey reads the key at path or makes one. made says which.
func loadOrCreateKey(path string) (key *ecdsa.PrivateKey, made bool, err error) {
	key, err = loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, false, fmt.Errorf("make key %s: %v", path, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, false, fmt.Errorf("encode key %s: %v", path, err)
	}
	if err := create(path, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})); err != nil {
		return nil, false, err
	}
	return key, true, nil
}
