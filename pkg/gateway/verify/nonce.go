package verify

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// NonceLife is how long a nonce is good for.
	NonceLife = 60 * time.Second
	// nonceMAC is how much of the HMAC travels, in bytes: 128 bits.
	nonceMAC = 16
	// nonceHead is the time in milliseconds and eight random bytes, which keep
	// two nonces of one millisecond apart.
	nonceHead = 16
)

// MAC is an HMAC under a key of the given purpose that all replicas share.
type MAC func(purpose string, message []byte) ([]byte, error)

const noncePurpose = "device-nonce"

var errNonce = errors.New("the nonce is not ours or too old")

// newNonce makes a nonce: its own time, and an HMAC that proves it is ours.
func newNonce(mac MAC, now time.Time) (string, error) {
	raw := make([]byte, nonceHead, nonceHead+nonceMAC)
	binary.BigEndian.PutUint64(raw, uint64(now.UnixMilli()))
	if _, err := rand.Read(raw[8:nonceHead]); err != nil {
		return "", fmt.Errorf("draw nonce: %v", err)
	}
	sum, err := mac(noncePurpose, raw)
	if err != nil {
		return "", fmt.Errorf("make nonce: %v", err)
	}
	return base64.RawURLEncoding.EncodeToString(append(raw, sum[:nonceMAC]...)), nil
}

// checkNonce says whether a nonce is ours and at most NonceLife old.
func checkNonce(mac MAC, nonce string, now time.Time) error {
	raw, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(raw) != nonceHead+nonceMAC {
		return errNonce
	}
	sum, err := mac(noncePurpose, raw[:nonceHead])
	if err != nil {
		return fmt.Errorf("check nonce: %v", err)
	}
	if !hmac.Equal(sum[:nonceMAC], raw[nonceHead:]) {
		return errNonce
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(raw))))
	// Another replica's clock may be a little ahead of ours.
	if age < -NonceLife || age > NonceLife {
		return errNonce
	}
	return nil
}
