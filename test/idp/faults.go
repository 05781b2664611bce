package idp

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Endpoint names a part of the provider for switches and counters.
type Endpoint string

// The endpoints; Pages are the login, second factor and device pages.
const (
	Discovery           Endpoint = "discovery"
	JWKS                Endpoint = "jwks"
	Authorize           Endpoint = "authorize"
	Token               Endpoint = "token"
	Userinfo            Endpoint = "userinfo"
	Revocation          Endpoint = "revocation"
	DeviceAuthorization Endpoint = "device_authorization"
	EndSession          Endpoint = "end_session"
	Pages               Endpoint = "pages"
)

// BadJWKS is a way in which the key set is wrong.
type BadJWKS string

// Wrong key sets, all of them with status 200.
const (
	EmptyJWKS BadJWKS = "empty" // a set without keys
	HTMLJWKS  BadJWKS = "html"  // a page instead of JSON
	CutJWKS   BadJWKS = "cut"   // JSON that ends in the middle
)

// Faults are the switches. The zero value is a provider in good health; any
// number may be on at once.
type Faults struct {
	// On limits Down, Status, Delay and HugeBody to some endpoints. Empty: all.
	On []Endpoint
	// Down cuts the connection instead of answering.
	Down bool
	// Status answers with this HTTP status and a page, as a proxy in front does.
	Status int
	// Delay holds back every answer.
	Delay time.Duration
	// HugeBody answers 200 and JSON that never ends.
	HugeBody bool

	// RedirectDiscovery sends readers of the discovery document elsewhere.
	RedirectDiscovery string
	// Metadata is laid over the discovery document; nil removes a field.
	Metadata map[string]any
	// DiscoveryIssuer replaces the issuer in the discovery document.
	DiscoveryIssuer string
	// HTTPTokenEndpoint publishes the token endpoint without TLS.
	HTTPTokenEndpoint bool
	// PlainOnlyPKCE publishes "plain" as the only PKCE method.
	PlainOnlyPKCE bool
	// BadJWKS breaks the key set.
	BadJWKS BadJWKS

	// ErrorCallback ends authorisation with this error_description
	// instead of a code; CallbackError is its code, access_denied by default.
	ErrorCallback string
	CallbackError string
	// OmitCallbackIssuer leaves out the promised "iss" of RFC 9207,
	// CallbackIssuer replaces it, and NoIssuerParameter neither promises nor sends it.
	OmitCallbackIssuer bool
	CallbackIssuer     string
	NoIssuerParameter  bool

	// TokenError refuses at the token endpoint with this error code;
	// TokenErrorText is its description.
	TokenError     string
	TokenErrorText string
	// WrongNonce and OmitNonce spoil the nonce of ID tokens.
	WrongNonce bool
	OmitNonce  bool
	// TokenIssuer replaces "iss" in ID tokens.
	TokenIssuer string
	// IDTokenClaims are laid over the claims of ID tokens; nil removes one.
	IDTokenClaims map[string]any
	// OmitIDTokenOnRefresh and OmitRefreshToken leave out what some providers do.
	OmitIDTokenOnRefresh bool
	OmitRefreshToken     bool
	// UserinfoSubject replaces "sub" in userinfo answers.
	UserinfoSubject string

	// SlowDown answers slow_down to that many device polls, then counts down to none.
	SlowDown int
	// DeviceError answers device polls with this error, for instance expired_token.
	DeviceError string
}

// SetFaults turns the switches; Faults{} turns all of them off.
func (p *Provider) SetFaults(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

func (p *Provider) currentFaults() Faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// takeSlowDown uses up one forced slow_down.
func (p *Provider) takeSlowDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults.SlowDown == 0 {
		return false
	}
	p.faults.SlowDown--
	return true
}

func (f Faults) hits(e Endpoint) bool { return len(f.On) == 0 || slices.Contains(f.On, e) }

// misbehave applies the switches that need no answer from the provider. It
// reports whether the request is finished.
func (p *Provider) misbehave(w http.ResponseWriter, r *http.Request, e Endpoint, f Faults) bool {
	if !f.hits(e) {
		return false
	}
	if f.Delay > 0 {
		wait := time.NewTimer(f.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	switch {
	case f.Down:
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte("<html><body><h1>" + http.StatusText(f.Status) + "</h1></body></html>"))
		return true
	case f.HugeBody:
		endless(w, r)
		return true
	}
	return false
}

// endless writes one JSON string for as long as anybody reads it.
func endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	chunk := []byte(strings.Repeat("x", 64<<10))
	if _, err := w.Write([]byte(`{"padding":"`)); err != nil {
		return
	}
	for r.Context().Err() == nil {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}
