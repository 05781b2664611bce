package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// settle is how long a login waits for the first word of control, so that the
// next command finds everything in place.
const settle = 10 * time.Second

// Login does the whole order of login: device, person, certificate. The person's
// page opens only once the gateway has let the device pass. On success the new
// session takes the place of an old one, which is ended at the gateway.
func (s *Session) Login(ctx context.Context, pr Prompt) error {
	p, err := s.agreed(ctx, pr)
	if err != nil {
		return err
	}
	byCode := pr.DeviceCode != DeviceCodeNever && p.OIDC.DeviceCode
	if pr.DeviceCode == DeviceCodeOnly && !byCode {
		return fault.New(fault.ExitRefused, "kubectl zt login", "this gateway does not allow login by device code")
	}
	proof, err := newProofKey()
	if err != nil {
		return err
	}
	pr.Progress("checking this device")
	check, err := s.deviceCheck(ctx, wire.PurposeLogin, proof)
	if err != nil {
		return err
	}
	provider, err := s.signIn(ctx, p, pr, check, byCode)
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept { // a login that came to nothing leaves no token behind at the issuer
			_ = provider.revoke(context.WithoutCancel(ctx), s.loginConfig(p))
			provider.close()
		}
	}()
	pr.Progress("opening the session")
	issued, err := s.open(ctx, check, provider, byCode)
	if err != nil {
		return err
	}
	id, err := newIdentity(p, s.key, proof, issued)
	if err != nil {
		return err
	}
	err = s.take(ctx, id, provider)
	kept = err == nil
	return err
}

// agreed asks the gateway who it is and holds the answer against the profile.
// What the person need not agree to (scopes, device code) is taken over.
func (s *Session) agreed(ctx context.Context, pr Prompt) (*profile.Profile, error) {
	p := s.profile.Load()
	var disc wire.Discovery
	if err := s.call(ctx, http.MethodGet, wire.PathDiscovery, nil, &disc); err != nil {
		return nil, err
	}
	if err := oldEnough(s.deps.Version, disc.MinimumClient); err != nil {
		return nil, err
	}
	warning, err := s.clock.check()
	if err != nil {
		return nil, err
	}
	if warning != "" && pr.Warn != nil {
		pr.Warn(warning)
	}
	now := p.Clone()
	now.Domain, now.TrustDomain, now.GatewayCA = disc.Domain, disc.TrustDomain, disc.GatewayCA
	now.OIDC, now.Enrolment = disc.OIDC, disc.Enrolment
	if changes := Changes(p, now); len(changes) > 0 {
		return nil, fault.New(fault.ExitUntrusted, "if its administrator confirms it: "+trustCommand(p), "the gateway is not what it was: %s", strings.Join(changes, "; "))
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	s.profile.Store(now)
	return now, s.deps.Home.Save(now)
}

// call is gw.call with an unknown authority explained.
func (s *Session) call(ctx context.Context, method, path string, in, out any) error {
	if err := s.gw.call(ctx, method, path, in, out); err != nil {
		return stranger(err, s.profile.Load().Gateway)
	}
	return nil
}

// deviceCheck shows the device key before anybody is asked who he is.
func (s *Session) deviceCheck(ctx context.Context, purpose string, proof *ecdsa.PrivateKey) (*wire.DeviceCheck, error) {
	p := s.profile.Load()
	var nonce wire.DeviceNonce
	if err := s.call(ctx, http.MethodPost, wire.PathDeviceNonce, struct{}{}, &nonce); err != nil {
		return nil, err
	}
	jkt, err := evidence.Thumbprint(proof.Public())
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // only for the eyes of whoever approves the device
	jws, err := evidence.SignStatement(s.key.Signer, wire.DeviceStatement{
		Purpose: purpose, Audience: p.TrustDomain, Nonce: nonce.Nonce, IssuedAt: s.clock.Now().Unix(),
		Proof: jkt, Platform: runtime.GOOS, Hostname: host, Client: s.deps.Version,
	})
	if err != nil {
		return nil, err
	}
	check := new(wire.DeviceCheck)
	if err := s.call(ctx, http.MethodPost, wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: jws}, check); err != nil {
		return nil, err
	}
	if purpose != wire.PurposeRenew && check.Nonce != evidence.OIDCNonce(check.TXN, s.key.Thumbprint) {
		return nil, fault.New(fault.ExitUntrusted, "ask the gateway's administrator", "the gateway's nonce is not for this device")
	}
	return check, nil
}

// signIn sends the person to his issuer.
func (s *Session) signIn(ctx context.Context, p *profile.Profile, pr Prompt, check *wire.DeviceCheck, byCode bool) (*idp, error) {
	pr.Progress("signing in at " + string(p.OIDC.Issuer))
	cfg := s.loginConfig(p)
	cfg.OpenBrowser, cfg.Stderr, cfg.NoQR = pr.Open, pr.Out, !pr.QR
	client, err := login.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var tokens *login.Tokens
	if byCode {
		tokens, err = client.DeviceCode(ctx)
	} else {
		tokens, err = client.AuthCode(ctx, check.Nonce)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return &idp{client: client, tokens: *tokens}, nil
}

func (s *Session) open(ctx context.Context, check *wire.DeviceCheck, provider *idp, deviceCode bool) (wire.Certificate, error) {
	csr, err := s.key.CSR()
	if err != nil {
		return wire.Certificate{}, err
	}
	var issued wire.Certificate
	err = s.call(ctx, http.MethodPost, wire.PathSession, wire.SessionRequest{
		TXN: check.TXN, IDToken: provider.tokens.IDToken.Reveal(), CSR: csr, DeviceCode: deviceCode,
	}, &issued)
	return issued, err
}

// take makes the new session the one, ends the old one, and waits until control
// has spoken.
func (s *Session) take(ctx context.Context, id *identity, provider *idp) error {
	l, err := s.begin(id, provider)
	if err != nil {
		return err
	}
	old, _ := s.current()
	if old != nil {
		s.dismiss(ctx, old)
	}
	if old, _ = s.current(); !s.replace(old, l, nil) {
		return fault.New(fault.ExitFailed, "kubectl zt status", "another login was quicker")
	}
	s.deps.Log.Info("session opened", "session", string(id.who.Session), "until", id.issued.SessionEnd.UTC().Format(time.RFC3339))
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	now, changed := s.current()
	if now != l {
		return s.notLoggedIn()
	}
	select {
	case <-l.catalogue.ready:
	case <-changed:
		return s.notLoggedIn()
	case <-ctx.Done():
		// Logged in all the same: the certificate is good, the way may heal.
		s.deps.Log.Warn("control not heard of after login", "error", fault.Of(l.unheard()).What)
	}
	return nil
}

// dismiss tells control that a session that is being replaced is over.
func (s *Session) dismiss(ctx context.Context, old *live) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := old.control.call(ctx, http.MethodPost, wire.PathLogout, struct{}{}, nil); err != nil {
		s.deps.Log.Debug("old session not ended at the gateway", "error", fault.Of(err).What)
	}
	_ = old.idp.revoke(ctx, s.loginConfig(s.profile.Load()))
	old.idp.close()
}

// tunnelTLS presents whatever certificate is the latest.
func (s *Session) tunnelTLS(l *live, p *profile.Profile, ca []*x509.Certificate) func() *tls.Config {
	return func() *tls.Config {
		return trust.TunnelClient(p.TunnelName(), poolOf(ca...), func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			id := l.identity.Load()
			if !id.valid(s.clock.Now()) {
				// No wire reason: whoever dials now was too late, a renewal may still come.
				return nil, fault.New(fault.ExitLogin, "kubectl zt login", "the session's certificate has expired")
			}
			return id.cert, nil
		})
	}
}

// Enroll asks for this device to be known. A person stands behind it: he signs
// in, and what the login gave is given up again.
func (s *Session) Enroll(ctx context.Context, pr Prompt) (wire.DeviceState, error) {
	var state wire.DeviceState
	p, err := s.agreed(ctx, pr)
	if err != nil {
		return state, err
	}
	proof, err := newProofKey()
	if err != nil {
		return state, err
	}
	pr.Progress("showing this device to the gateway")
	check, err := s.deviceCheck(ctx, wire.PurposeEnroll, proof)
	if err != nil {
		return state, err
	}
	// By device code its ID token could not be bound to this device.
	provider, err := s.signIn(ctx, p, pr, check, false)
	if err != nil {
		return state, err
	}
	defer provider.close()
	defer func() { _ = provider.revoke(ctx, s.loginConfig(p)) }()
	err = s.call(ctx, http.MethodPost, wire.PathDeviceEnroll, wire.EnrollRequest{TXN: check.TXN, IDToken: provider.tokens.IDToken.Reveal()}, &state)
	return state, err
}
