package evidence

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// proofType is the JWS "typ" of a peer proof.
	proofType = "zt-proof+jwt"
	// MaxProofAge is how far ahead a proof's end may lie, in the gateway's clock.
	MaxProofAge = 60 * time.Second
	// proofLife is what SignProof asks for: the rest of MaxProofAge is room for
	// an error in the measured clock offset.
	proofLife = 45 * time.Second
	// maxProof is in bytes of the compact form: what fits a preface.
	maxProof = 4096
)

// ProofRequest is what a peer proof shall say.
type ProofRequest struct {
	// Audience is the cluster's UID, or the trust domain for control.
	Audience string
	// Hello is the whole ClientHello handshake message, Hello.Message; nil for
	// a renewal.
	Hello []byte
	// Renew says that the proof only shows a newer certificate.
	Renew bool
	// Now is the time by the gateway's clock.
	Now time.Time
	// Chain is the trust certificate, leaf first; a self-signed root is left out.
	Chain []*x509.Certificate
}

// claims of a peer proof. There is no room for identity on purpose.
type claims struct {
	Audience string `json:"aud"`
	Expiry   int64  `json:"exp"`
	ID       string `json:"jti"`
	Hello    string `json:"hello,omitempty"` // base64url without padding
	Renew    bool   `json:"renew,omitempty"`
}

// Proof is a verified peer proof. It is genuine; whether it is also welcome is
// another question.
type Proof struct {
	// Identity is read from the trust certificate.
	Identity trust.Identity
	Audience string
	// Hello is the SHA-256 of the signed ClientHello; zero for a renewal.
	Hello   [sha256.Size]byte
	Renew   bool
	JTI     string
	Expires time.Time
}

// SignProof makes the peer proof for r. proofKey must be the P-256 key whose
// thumbprint stands in r.Chain[0].
func SignProof(proofKey crypto.Signer, r ProofRequest) (string, error) {
	if r.Audience == "" || len(r.Chain) == 0 || r.Renew == (r.Hello != nil) {
		return "", errors.New("sign proof: want an audience, a certificate and either a hello or a renewal")
	}
	c := claims{
		Audience: r.Audience,
		Expiry:   r.Now.Add(proofLife).Unix(),
		ID:       rand.Text(),
		Renew:    r.Renew,
	}
	if r.Hello != nil {
		sum := sha256.Sum256(r.Hello)
		c.Hello = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	chain := r.Chain
	if root := chain[len(chain)-1]; len(chain) > 1 && string(root.RawIssuer) == string(root.RawSubject) {
		chain = chain[:len(chain)-1]
	}
	jws, err := sign(proofKey, proofType, chain, c)
	if err != nil {
		return "", fmt.Errorf("sign proof: %w", err)
	}
	if len(jws) > maxProof {
		return "", fmt.Errorf("sign proof: %d bytes, at most %d are allowed", len(jws), maxProof)
	}
	return jws, nil
}

// VerifyProof returns the proof in jws if it is genuine: signed by the proof key
// that a trust certificate under roots names. If it is genuine but its time, or
// its certificate's, is not now, both the proof and an error that is a
// *wire.Refusal are returned. With any other error there is no proof.
//
// It does not compare audience and hello, and does not know replays.
func VerifyProof(jws string, roots *x509.CertPool, trustDomain string, now time.Time) (*Proof, error) {
	return verifyProof(jws, roots, trustDomain, now, nil)
}

func verifyProof(jws string, roots *x509.CertPool, trustDomain string, now time.Time, cache *ChainCache) (*Proof, error) {
	if len(jws) > maxProof {
		return nil, fmt.Errorf("proof: %d bytes, at most %d are allowed", len(jws), maxProof)
	}
	signed, err := verify(jws, proofType)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	id, refusal, err := signed.chain.verify(roots, trustDomain, now, cache)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	if key, err := trust.Thumbprint(signed.key); err != nil || key != id.Proof {
		return nil, errors.New("proof: signed by another key than the certificate names")
	}
	proof, err := parseClaims(signed.payload)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	proof.Identity = id
	switch {
	case refusal != nil:
		return proof, refusal
	case now.After(proof.Expires):
		return proof, wire.Refuse(wire.ReasonProofExpired, "", "the proof of this connection expired at %s", proof.Expires.UTC().Format(time.RFC3339))
	case proof.Expires.Sub(now) > MaxProofAge:
		return proof, wire.Refuse(wire.ReasonClockSkew, "", "the proof of this connection is dated %s ahead: clock skew", proof.Expires.Sub(now).Round(time.Second))
	}
	return proof, nil
}

func parseClaims(payload []byte) (*Proof, error) {
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, err
	}
	proof := &Proof{Audience: c.Audience, Renew: c.Renew, JTI: c.ID, Expires: time.Unix(c.Expiry, 0)}
	if c.Audience == "" || c.Expiry <= 0 || len(c.ID) < 16 || len(c.ID) > 64 {
		return nil, errors.New("aud, exp or jti is missing or out of bounds")
	}
	hello, err := base64.RawURLEncoding.Strict().DecodeString(c.Hello)
	switch {
	case err != nil:
		return nil, fmt.Errorf("hello: %w", err)
	case c.Renew && len(hello) == 0:
	case !c.Renew && len(hello) == sha256.Size:
		proof.Hello = [sha256.Size]byte(hello)
	default:
		return nil, errors.New("neither for one hello nor for a renewal")
	}
	return proof, nil
}
