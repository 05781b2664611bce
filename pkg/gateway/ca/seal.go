package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

const (
	sealKeySize = 32 // bytes
	sealSalt    = 16 // bytes
)

// ErrSealed is returned by Open for whatever was not sealed by this gateway
// for this purpose. It does not say what is wrong with it.
var ErrSealed = errors.New("not sealed by this gateway")

// sealer seals state that clients carry, so that any replica with the same key
// continues what another began.
type sealer struct{ key []byte }

func openSealer(path string) (*sealer, error) {
	data, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, sealKeySize)
		if _, err := rand.Read(key); err != nil {
			return nil, fmt.Errorf("draw seal key: %v", err)
		}
		return &sealer{key}, create(path, pem.EncodeToMemory(&pem.Block{Type: pemSeal, Bytes: key}))
	}
	if err != nil {
		return nil, err
	}
	key, err := onePEM(path, data, pemSeal)
	if err != nil {
		return nil, err
	}
	if len(key) != sealKeySize {
		return nil, fmt.Errorf("%s: want a key of %d bytes", path, sealKeySize)
	}
	return &sealer{key}, nil
}

// aead is AES-256-GCM under a key of its own for every message: HKDF over a
// random salt gives key and nonce, so the number of messages has no bound that
// matters and no counter is shared between replicas.
func (s *sealer) aead(purpose string, salt []byte) (cipher.AEAD, []byte, error) {
	const nonceSize = 12
	okm, err := hkdf.Key(sha256.New, s.key, salt, "zt seal v1 "+purpose, sealKeySize+nonceSize)
	if err != nil {
		return nil, nil, fmt.Errorf("derive seal key: %v", err)
	}
	block, err := aes.NewCipher(okm[:sealKeySize])
	if err != nil {
		return nil, nil, fmt.Errorf("seal cipher: %v", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, nil, fmt.Errorf("seal cipher: %v", err)
	}
	return gcm, okm[sealKeySize:], nil
}

func (s *sealer) seal(plaintext []byte, purpose string) (string, error) {
	salt := make([]byte, sealSalt, sealSalt+len(plaintext)+16)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("draw salt: %v", err)
	}
	gcm, nonce, err := s.aead(purpose, salt)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(gcm.Seal(salt, nonce, plaintext, nil)), nil
}

func (s *sealer) open(sealed, purpose string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(raw) < sealSalt {
		return nil, ErrSealed
	}
	// The decoder skips line breaks and trailing bits. One sealed value must
	// have one spelling, because use-once goes by the hash of the spelling.
	if base64.RawURLEncoding.EncodeToString(raw) != sealed {
		return nil, ErrSealed
	}
	gcm, nonce, err := s.aead(purpose, raw[:sealSalt])
	if err != nil {
		return nil, err
	}
	plaintext, err := gcm.Open(nil, nonce, raw[sealSalt:], nil)
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

func (s *sealer) mac(purpose string, message []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, s.key, nil, "zt mac v1 "+purpose, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive mac key: %v", err)
	}
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil), nil
}
