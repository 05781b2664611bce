package ca

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// tokenType is the JWT type of access tokens (RFC 9068). It keeps them apart
// from everything else that is signed with ES256.
const tokenType = "at+jwt"

// tokenKey signs access tokens. Its id is its RFC 7638 thumbprint.
type tokenKey struct {
	key *ecdsa.PrivateKey
	id  string
}

func openTokenKey(path string) (*tokenKey, error) {
	key, _, err := loadOrCreateKey(path)
	if err != nil {
		return nil, err
	}
	thumbprint, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%s: thumbprint: %v", path, err)
	}
	return &tokenKey{key: key, id: base64.RawURLEncoding.EncodeToString(thumbprint)}, nil
}

// TokenSigner signs access tokens: ES256, typ "at+jwt", with the key's id.
func (a *Authorities) TokenSigner() (jose.Signer, error) {
	options := (&jose.SignerOptions{}).WithType(tokenType).WithHeader(jose.HeaderKey("kid"), a.token.id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: a.token.key}, options)
	if err != nil {
		return nil, fmt.Errorf("token signer: %v", err)
	}
	return signer, nil
}

// TokenKeys are the public keys under which access tokens are verified.
func (a *Authorities) TokenKeys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: a.token.key.Public(), KeyID: a.token.id, Algorithm: string(jose.ES256), Use: "sig",
	}}}
}
