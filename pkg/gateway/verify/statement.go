package verify

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// MaxClockSkew is how far a device's clock may be from ours; beyond it, it is
// told so instead of failing in some other way later.
const MaxClockSkew = 15 * time.Minute

// Errors that callers answer differently; both are facts about the message
// alone. For every other error the answer is the mute one.
var (
	// ErrPurpose: a signed statement of a kind that we do not know.
	ErrPurpose = errors.New("unknown purpose of a device statement")
	// ErrClockSkew: a signed statement whose time is too far from ours.
	ErrClockSkew = errors.New("clock skew")
)

// Device is a device that holds the key it shows.
type Device struct {
	Purpose    string
	Thumbprint wire.Thumbprint
	ID         wire.DeviceID
	Tier       v1alpha1.DeviceTier
	// Proof is the thumbprint of the proof key to be bound.
	Proof wire.Thumbprint
	// Platform, Hostname and Client are claims, cut to what is fit to be shown.
	Platform, Hostname, Client string
}

// Verifier judges statements for one trust domain.
type Verifier struct {
	trustDomain string
	mac         MAC
	now         func() time.Time
}

// New returns a Verifier. mac must be the same on all replicas.
func New(trustDomain string, mac MAC, now func() time.Time) *Verifier {
	return &Verifier{trustDomain: trustDomain, mac: mac, now: now}
}

// Nonce is for the next statement of whoever asks; nothing is remembered.
func (v *Verifier) Nonce() (wire.DeviceNonce, error) {
	now := v.now()
	nonce, err := newNonce(v.mac, now)
	return wire.DeviceNonce{Nonce: nonce, Time: now.UTC()}, err
}

// Statement verifies a signed device statement.
func (v *Verifier) Statement(jws string) (Device, error) {
	s, pub, err := evidence.VerifyStatement(jws, v.trustDomain)
	if err != nil {
		return Device{}, err
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return Device{}, errors.New("device statement: not an ECDSA key")
	}
	now := v.now()
	if err := checkNonce(v.mac, s.Nonce, now); err != nil {
		return Device{}, fmt.Errorf("device statement: %v", err)
	}
	switch s.Purpose {
	case wire.PurposeLogin, wire.PurposeEnroll, wire.PurposeRenew:
	default:
		return Device{}, ErrPurpose
	}
	if off := now.Sub(time.Unix(s.IssuedAt, 0)); off > MaxClockSkew || off < -MaxClockSkew {
		return Device{}, ErrClockSkew
	}
	if trust.DeviceID(s.Proof) == "" {
		return Device{}, errors.New("device statement: the proof key's thumbprint is none")
	}
	thumbprint, err := trust.Thumbprint(key)
	if err != nil {
		return Device{}, fmt.Errorf("device statement: %v", err)
	}
	return Device{
		Purpose:    s.Purpose,
		Thumbprint: thumbprint,
		ID:         trust.DeviceID(thumbprint),
		Tier:       v1alpha1.TierSoftware,
		Proof:      s.Proof,
		Platform:   platform(s.Platform),
		Hostname:   text(s.Hostname, 253),
		Client:     text(s.Client, 64),
	}, nil
}

// goos is the form of a GOOS name. Roles may ask for a platform, so what has
// another form is no platform rather than a look-alike of one.
var goos = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

func platform(s string) string {
	if !goos.MatchString(s) {
		return ""
	}
	return s
}

// text keeps what people will read in lists and logs printable and short.
func text(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
