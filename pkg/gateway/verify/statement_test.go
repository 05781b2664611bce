package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const domain = "zt.test"

func mac(key string) MAC {
	return func(purpose string, message []byte) ([]byte, error) {
		h := hmac.New(sha256.New, []byte(key+purpose))
		h.Write(message)
		return h.Sum(nil), nil
	}
}

// bench is a verifier with a settable clock, a device, and a good statement.
type bench struct {
	*Verifier
	now time.Time
	key *ecdsa.PrivateKey
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	b.Verifier = New(domain, mac("ours"), func() time.Time { return b.now })
	var err error
	if b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) statement(t *testing.T) wire.DeviceStatement {
	t.Helper()
	nonce, err := b.Nonce()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := trust.Thumbprint(b.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return wire.DeviceStatement{
		Purpose: wire.PurposeLogin, Audience: domain, Nonce: nonce.Nonce, IssuedAt: b.now.Unix(),
		Proof: proof, Platform: "linux", Hostname: "laptop", Client: "v1",
	}
}

func (b *bench) sign(t *testing.T, s wire.DeviceStatement) string {
	t.Helper()
	jws, err := evidence.SignStatement(b.key, s)
	if err != nil {
		t.Fatal(err)
	}
	return jws
}

func TestStatement(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.statement(t)
	got, err := b.Statement(b.sign(t, s))
	if err != nil {
		t.Fatal(err)
	}
	thumbprint, _ := trust.Thumbprint(b.key.Public())
	want := Device{
		Purpose: wire.PurposeLogin, Thumbprint: thumbprint, ID: trust.DeviceID(thumbprint), Tier: v1alpha1.TierSoftware,
		Proof: s.Proof, Platform: "linux", Hostname: "laptop", Client: "v1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStatementsThatAreRefused(t *testing.T) {
	t.Parallel()
	anyError := errors.New("any")
	tests := []struct {
		name string
		edit func(b *bench, s *wire.DeviceStatement)
		want error
	}{
		{"nonce just in time", func(b *bench, s *wire.DeviceStatement) { b.now = b.now.Add(NonceLife) }, nil},
		{"nonce too old", func(b *bench, s *wire.DeviceStatement) { b.now = b.now.Add(NonceLife + time.Millisecond) }, anyError},
		{"nonce of the future", func(b *bench, s *wire.DeviceStatement) { b.now = b.now.Add(-2 * NonceLife) }, anyError},
		{"nonce of a stranger", func(b *bench, s *wire.DeviceStatement) { s.Nonce, _ = newNonce(mac("theirs"), b.now) }, anyError},
		{"nonce of another purpose", func(b *bench, s *wire.DeviceStatement) {
			raw, _ := base64.RawURLEncoding.DecodeString(s.Nonce)
			sum, _ := mac("ours")("txn", raw[:nonceHead])
			s.Nonce = base64.RawURLEncoding.EncodeToString(append(raw[:nonceHead:nonceHead], sum[:nonceMAC]...))
		}, anyError},
		{"nonce cut", func(b *bench, s *wire.DeviceStatement) { s.Nonce = s.Nonce[:20] }, anyError},
		{"no nonce", func(b *bench, s *wire.DeviceStatement) { s.Nonce = "" }, anyError},
		{"another trust domain", func(b *bench, s *wire.DeviceStatement) { s.Audience = "other.test" }, anyError},
		{"unknown purpose", func(b *bench, s *wire.DeviceStatement) { s.Purpose = "issue" }, ErrPurpose},
		{"no purpose", func(b *bench, s *wire.DeviceStatement) { s.Purpose = "" }, ErrPurpose},
		{"clock 14 minutes behind", func(b *bench, s *wire.DeviceStatement) { s.IssuedAt -= 14 * 60 }, nil},
		{"clock 14 minutes ahead", func(b *bench, s *wire.DeviceStatement) { s.IssuedAt += 14 * 60 }, nil},
		{"clock 16 minutes behind", func(b *bench, s *wire.DeviceStatement) { s.IssuedAt -= 16 * 60 }, ErrClockSkew},
		{"clock 16 minutes ahead", func(b *bench, s *wire.DeviceStatement) { s.IssuedAt += 16 * 60 }, ErrClockSkew},
		{"no proof key", func(b *bench, s *wire.DeviceStatement) { s.Proof = "" }, anyError},
		{"proof key of another form", func(b *bench, s *wire.DeviceStatement) { s.Proof = "../../x" }, anyError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			s := b.statement(t)
			tt.edit(b, &s)
			_, err := b.Statement(b.sign(t, s))
			switch {
			case tt.want == nil && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want == anyError && (err == nil || errors.Is(err, ErrPurpose) || errors.Is(err, ErrClockSkew)):
				t.Errorf("got %v, want the mute kind of error", err)
			case tt.want != nil && tt.want != anyError && !errors.Is(err, tt.want):
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// What an unsigned message says is not looked at: neither its purpose nor its
// clock comes out in the error.
func TestSignatureComesFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.statement(t)
	s.Purpose, s.IssuedAt = "issue", 0
	jws := b.sign(t, s)
	head, signature := jws[:strings.LastIndexByte(jws, '.')+1], jws[strings.LastIndexByte(jws, '.')+1:]
	flipped := []byte(signature)
	flipped[5] ^= 1
	_, err := b.Statement(head + string(flipped))
	if err == nil || errors.Is(err, ErrPurpose) || errors.Is(err, ErrClockSkew) {
		t.Errorf("got %v, want an error about the signature", err)
	}
}

func TestClaimsAreMadeFitToBeShown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.statement(t)
	s.Platform, s.Hostname, s.Client = "Linux\n", "a\x1b]52;c;x\x07b"+strings.Repeat("é", 200), strings.Repeat("v", 100)
	got, err := b.Statement(b.sign(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if got.Platform != "" || strings.ContainsAny(got.Hostname, "\x1b\x07") || len(got.Hostname) > 253 || len(got.Client) != 64 {
		t.Errorf("platform %q, hostname %q, client %q", got.Platform, got.Hostname, got.Client)
	}
}
