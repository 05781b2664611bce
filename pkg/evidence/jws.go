package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/go-jose/go-jose/v4/json"
)

// algorithm is the only one: what a header asks for is never followed.
const algorithm = jose.ES256

// sign makes a compact JWS over claims with the public key in the "jwk" header.
func sign(key crypto.Signer, typ jose.ContentType, chain []*x509.Certificate, claims any) (string, error) {
	if err := checkP256(key.Public()); err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{EmbedJWK: true}).WithType(typ)
	if len(chain) > 0 {
		x5c := make([]string, len(chain))
		for i, cert := range chain {
			x5c[i] = base64.StdEncoding.EncodeToString(cert.Raw)
		}
		options = options.WithHeader("x5c", x5c)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: cryptosigner.Opaque(key)}, options)
	if err != nil {
		return "", err
	}
	object, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return object.CompactSerialize()
}

// signature is what a JWS says of itself once its signature was found good: that
// key signed this payload, and put these certificates beside it.
type signature struct {
	key     *ecdsa.PublicKey
	chain   chain // as shown, not verified
	payload []byte
}

func verify(jws, typ string) (*signature, error) {
	object, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{algorithm})
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if len(object.Signatures) != 1 {
		return nil, errors.New("not exactly one signature")
	}
	header := object.Signatures[0].Protected
	if got := header.ExtraHeaders[jose.HeaderType]; got != typ {
		return nil, fmt.Errorf("typ is %q, want %q", got, typ)
	}
	if header.JSONWebKey == nil {
		return nil, errors.New("no public key in the header")
	}
	key, ok := header.JSONWebKey.Key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key is %T, want ECDSA P-256", header.JSONWebKey.Key)
	}
	if err := checkP256(key); err != nil {
		return nil, err
	}
	payload, err := object.Verify(key)
	if err != nil {
		return nil, err
	}
	chain, err := chainOf(jws)
	if err != nil {
		return nil, err
	}
	return &signature{key: key, chain: chain, payload: payload}, nil
}

// chainOf reads the x5c header (RFC 7515, 4.1.6). The library only hands out
// chains that it has verified itself, and we verify under rules of our own.
func chainOf(jws string) (chain, error) {
	protected, _, _ := strings.Cut(jws, ".")
	raw, err := base64.RawURLEncoding.DecodeString(protected)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	var header struct {
		X5C chain `json:"x5c"`
	}
	if err := json.Unmarshal(raw, &header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return header.X5C, nil
}

func checkP256(pub crypto.PublicKey) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return errors.New("key is not ECDSA P-256")
	}
	return nil
}
