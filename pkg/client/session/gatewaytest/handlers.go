package gatewaytest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

var errRejected = errors.New("session is not welcome")

// gateway is gw.: strangers.
func (g *Gateway) gateway(w http.ResponseWriter, r *http.Request) {
	g.With(func(s *State) { s.UserAgent = r.UserAgent() })
	switch r.URL.Path {
	case wire.PathDiscovery:
		g.With(func(s *State) { s.Discoveries++ })
		d := Read(g, func(s *State) wire.Discovery {
			return wire.Discovery{TrustDomain: TrustDomain, Domain: Domain, GatewayCA: g.GW.PEM, OIDC: s.OIDC, Enrolment: s.Enrolment, MinimumClient: s.Minimum}
		})
		d.Time = g.Now()
		reply(w, d)
	case wire.PathDeviceNonce:
		reply(w, wire.DeviceNonce{Nonce: rand.Text(), Time: g.Now()})
	case wire.PathDeviceCheck:
		g.check(w, r)
	case wire.PathDeviceEnroll:
		g.enroll(w, r)
	case wire.PathSession:
		g.session(w, r)
	case wire.PathSessionRenew:
		g.renewExpired(w, r)
	default:
		http.NotFound(w, r)
	}
}

// txn is the login's state, carried by the client in plain sight here.
type txn struct{ Key, Proof wire.Thumbprint }

func (g *Gateway) check(w http.ResponseWriter, r *http.Request) {
	g.With(func(s *State) { s.Checks++ })
	if no := Read(g, func(s *State) *wire.Refusal { return s.RefuseCheck }); no != nil {
		refuse(w, no)
		return
	}
	in, ok := read[wire.DeviceCheckRequest](w, r)
	if !ok {
		return
	}
	st, pub, err := evidence.VerifyStatement(in.Statement, TrustDomain)
	if err != nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "%v", err))
		return
	}
	jkt, err := evidence.Thumbprint(pub)
	if err != nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "%v", err))
		return
	}
	sealed, _ := json.Marshal(txn{jkt, st.Proof})
	t := base64.RawURLEncoding.EncodeToString(sealed)
	reply(w, wire.DeviceCheck{TXN: t, Nonce: evidence.OIDCNonce(t, jkt), Time: g.Now()})
}

func opened(t string) txn {
	var x txn
	raw, _ := base64.RawURLEncoding.DecodeString(t)
	_ = json.Unmarshal(raw, &x)
	return x
}

// claims of an ID token, unverified.
type claims struct {
	Issuer  wire.Issuer  `json:"iss"`
	Subject wire.Subject `json:"sub"`
	Email   string       `json:"email"`
	Nonce   string       `json:"nonce"`
}

func idToken(raw string) (claims, bool) {
	var c claims
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return c, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	return c, err == nil && json.Unmarshal(payload, &c) == nil && c.Subject != ""
}

func (g *Gateway) enroll(w http.ResponseWriter, r *http.Request) {
	in, ok := read[wire.EnrollRequest](w, r)
	if !ok {
		return
	}
	x := opened(in.TXN)
	c, ok := idToken(in.IDToken)
	if !ok || c.Nonce != evidence.OIDCNonce(in.TXN, x.Key) {
		refuse(w, wire.Refuse(wire.ReasonTokenInvalid, "", "the id token is not for this device"))
		return
	}
	g.With(func(s *State) { s.Enrolled++ })
	reply(w, wire.DeviceState{ID: evidence.DeviceID(x.Key), Phase: "Pending", Tier: "software", Ownership: "personal", Owner: wire.Username(c.Email)})
}

func (g *Gateway) session(w http.ResponseWriter, r *http.Request) {
	in, ok := read[wire.SessionRequest](w, r)
	if !ok {
		return
	}
	x := opened(in.TXN)
	c, ok := idToken(in.IDToken)
	if !ok || (!in.DeviceCode && c.Nonce != evidence.OIDCNonce(in.TXN, x.Key)) {
		refuse(w, wire.Refuse(wire.ReasonTokenInvalid, "kubectl zt login", "the id token is not for this device"))
		return
	}
	s := &Session{ID: wire.SessionID(rand.Text()), User: wire.User{Issuer: c.Issuer, Subject: c.Subject, Name: wire.Username(c.Email)}, Key: x.Key, Proof: x.Proof}
	g.With(func(st *State) {
		st.Sessions[s.ID] = s
		st.Issued++
		st.LastCSR = in.CSR
	})
	g.issue(w, s, in.CSR)
}

// issue signs the certificate for the key of the CSR, which must be the device's.
func (g *Gateway) issue(w http.ResponseWriter, s *Session, csr string) {
	block, _ := pem.Decode([]byte(csr))
	if block == nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "no csr"))
		return
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || req.CheckSignature() != nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "bad csr"))
		return
	}
	if jkt, err := evidence.Thumbprint(req.PublicKey); err != nil || jkt != s.Key {
		refuse(w, wire.Refuse(wire.ReasonBindingMismatch, "", "another key"))
		return
	}
	now, life := g.Now(), Read(g, func(s *State) time.Duration { return s.CertLife })
	g.With(func(st *State) {
		if st.Slow > 0 {
			st.Slow--
			now = now.Add(-10 * time.Minute)
		}
	})
	id := trust.Identity{TrustDomain: TrustDomain, Session: s.ID, Proof: s.Proof, User: s.User}
	if Read(g, func(s *State) bool { return s.WrongProof }) {
		id.Proof = s.Key
	}
	template, err := trust.TrustTemplate(id, now.Add(-5*time.Minute), now.Add(life), serial())
	if err != nil {
		g.t.Error(err)
		return
	}
	der, err := x509.CreateCertificate(rand.Reader, template, g.Trust.Cert, req.PublicKey, g.Trust.Key)
	if err != nil {
		g.t.Error(err)
		return
	}
	reply(w, wire.Certificate{
		Chain: encode(der, g.Trust.Cert.Raw), Session: s.ID, User: s.User.Name, Device: evidence.DeviceID(s.Key),
		NotAfter: now.Add(life), SessionEnd: now.Add(12 * time.Hour), Time: now,
	})
}

func (g *Gateway) renewExpired(w http.ResponseWriter, r *http.Request) {
	in, ok := read[wire.RenewRequest](w, r)
	if !ok {
		return
	}
	x := opened(in.TXN)
	block, _ := pem.Decode([]byte(in.Certificate))
	if block == nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "no certificate"))
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "%v", err))
		return
	}
	id, err := trust.ParseTrustCertificate(cert, TrustDomain)
	s := Read(g, func(s *State) *Session { return s.Sessions[id.Session] })
	if err == nil && !g.Now().After(cert.NotAfter) {
		refuse(w, &wire.Refusal{Reason: wire.ReasonMethod, Code: http.StatusConflict, Message: "the certificate is still good"})
		return
	}
	if err != nil || s == nil || s.Ended || x.Key != s.Key {
		refuse(w, wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "this session cannot be renewed"))
		return
	}
	g.With(func(s *State) { s.RenewedExpired++ })
	g.renew(w, s, in)
}

func (g *Gateway) renew(w http.ResponseWriter, s *Session, in wire.RenewRequest) {
	if no := Read(g, func(s *State) *wire.Refusal { return s.RefuseRenewal }); no != nil {
		refuse(w, no)
		return
	}
	if in.IDToken != "" {
		if c, ok := idToken(in.IDToken); !ok || c.Subject != s.User.Subject {
			refuse(w, wire.Refuse(wire.ReasonTokenInvalid, "kubectl zt login", "another person"))
			return
		}
	}
	g.With(func(s *State) { s.Renewed++ })
	g.issue(w, s, in.CSR)
}

// End revokes all sessions: live streams learn it first, and whoever asks later.
func (g *Gateway) End(reason string) {
	sessions := Read(g, func(s *State) []*Session { return slices.Collect(maps.Values(s.Sessions)) })
	for _, s := range sessions {
		g.Push(wire.Event{Kind: wire.EventSession, Session: &wire.SessionChange{Session: s.ID, Ended: true, Reason: reason}})
	}
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, no *wire.Refusal) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(no.Status())
	_ = json.NewEncoder(w).Encode(no)
}

func read[T any](w http.ResponseWriter, r *http.Request) (T, bool) {
	var v T
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&v); err != nil {
		refuse(w, wire.Refuse(wire.ReasonMalformed, "", "%v", err))
		return v, false
	}
	return v, true
}
