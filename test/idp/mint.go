package idp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that signingHash names
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Mint says how a token shall differ from a good one.
type Mint struct {
	// Claims are laid over the good claims; nil removes one.
	Claims map[string]any
	// Payload replaces the claims altogether, byte by byte.
	Payload []byte
	// Header is laid over the good header; nil removes a field.
	Header map[string]any
	// Algorithm to sign with: RS/PS/ES 256–512, EdDSA, HS256–512 or none in any
	// letter case. Empty: the current key's. The header's "alg" follows it
	// unless Header says otherwise.
	Algorithm string
	// Key signs instead of the provider's current key.
	Key crypto.Signer
	// Secret is the key of the HS algorithms.
	Secret []byte
}

// MintIDToken makes an ID token for a person outside of any login, good or as
// bad as m says, in compact form. It signs with no library so that no library
// can refuse. It panics on an unknown user or an algorithm that does not fit the
// key: both are mistakes of a test.
func (p *Provider) MintIDToken(user string, m Mint) string {
	u, ok := p.storage.user(user)
	if !ok {
		panic(fmt.Sprintf("idp: mint: unknown user %q", user))
	}
	key := p.storage.signer()
	now := time.Now()
	claims := map[string]any{
		"iss": p.issuer, "sub": u.Subject, "aud": p.opts.ClientID, "azp": p.opts.ClientID,
		"iat": now.Unix(), "exp": now.Add(p.opts.IDTokenLife).Unix(), "auth_time": now.Unix(),
		"amr": []string{"pwd"},
	}
	overlay(claims, u.claims([]string{"email", "profile"}))
	overlay(claims, u.Claims)
	overlay(claims, m.Claims)
	payload := m.Payload
	if payload == nil {
		payload = mustJSON(claims)
	}
	alg := m.Algorithm
	if alg == "" {
		alg = string(key.alg)
	}
	signer := m.Key
	if signer == nil {
		signer = key.key
	}
	header := map[string]any{"alg": alg, "kid": key.id, "typ": "JWT"}
	overlay(header, m.Header)
	input := encode(mustJSON(header)) + "." + encode(payload)
	sig, err := sign(alg, signer, m.Secret, []byte(input))
	if err != nil {
		panic("idp: mint: " + err.Error())
	}
	return input + "." + encode(sig)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("idp: mint: " + err.Error())
	}
	return b
}

// sign makes a JWS signature (RFC 7518 section 3).
func sign(alg string, key crypto.Signer, secret, input []byte) ([]byte, error) {
	if strings.EqualFold(alg, "none") {
		return nil, nil
	}
	if alg == "EdDSA" {
		return key.Sign(rand.Reader, input, crypto.Hash(0))
	}
	hash, err := signingHash(alg)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(alg, "HS") {
		mac := hmac.New(hash.New, secret)
		mac.Write(input)
		return mac.Sum(nil), nil
	}
	h := hash.New()
	h.Write(input)
	digest := h.Sum(nil)
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			return rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			return nil, err
		}
		size := (key.Curve.Params().BitSize + 7) / 8
		sig := make([]byte, 2*size)
		r.FillBytes(sig[:size])
		s.FillBytes(sig[size:])
		return sig, nil
	case ed25519.PrivateKey:
		return nil, fmt.Errorf("an Ed25519 key signs EdDSA, not %s", alg)
	default:
		return nil, fmt.Errorf("cannot sign with a %T", key)
	}
}

func signingHash(alg string) (crypto.Hash, error) {
	switch {
	case strings.HasSuffix(alg, "256"):
		return crypto.SHA256, nil
	case strings.HasSuffix(alg, "384"):
		return crypto.SHA384, nil
	case strings.HasSuffix(alg, "512"):
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("unknown algorithm %q", alg)
}

// spoil signs an ID token of the library again if a switch, or its person,
// wants other claims in it. A token that nobody touches stays the library's own.
func (p *Provider) spoil(raw string, f Faults) string {
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{p.alg})
	if err != nil {
		return raw
	}
	claims := map[string]any{}
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return raw
	}
	changes := map[string]any{}
	if subject, ok := claims["sub"].(string); ok {
		if u, ok := p.storage.user(subject); ok {
			for k, v := range u.Claims {
				changes[k] = v
			}
		}
	}
	if _, has := claims["nonce"]; has && f.WrongNonce {
		changes["nonce"] = "not-the-nonce-that-was-asked-for"
	}
	if f.OmitNonce {
		changes["nonce"] = nil
	}
	if f.TokenIssuer != "" {
		changes["iss"] = f.TokenIssuer
	}
	for k, v := range f.IDTokenClaims {
		changes[k] = v
	}
	if len(changes) == 0 {
		return raw
	}
	overlay(claims, changes)
	key := p.storage.signer()
	input := encode(mustJSON(map[string]any{"alg": key.alg, "kid": key.id, "typ": "JWT"})) + "." + encode(mustJSON(claims))
	sig, err := sign(string(key.alg), key.key, nil, []byte(input))
	if err != nil {
		return raw
	}
	return input + "." + encode(sig)
}
