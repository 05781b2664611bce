package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/kube-zt/zt/pkg/wire"
)

// The operations, as they stand in front of an Error.
const (
	opDiscover = "read the provider's configuration"
	opLogin    = "sign in"
	opDevice   = "sign in by device code"
	opRefresh  = "refresh the login"
	opUserinfo = "ask the provider who you are"
	opRevoke   = "revoke the login at the provider"
)

// defaultTimeout is how long a person has for the pages of his provider.
const defaultTimeout = 5 * time.Minute

// Config of a Client. Issuer, ClientID, Scopes and CAPEM come from the profile.
type Config struct {
	// Issuer is an https URL, byte by byte as the provider spells it.
	Issuer wire.Issuer
	// ClientID of a public client: there is no secret.
	ClientID string
	// Scopes to ask for; "openid" is added where it is missing.
	Scopes []string
	// CAPEM holds the certificate authorities to trust for the issuer, and no
	// others; empty means those of the system.
	CAPEM []byte
	// OpenBrowser shows url to the person and returns when it is shown, or when
	// ctx ends. Nil: only the address is written.
	OpenBrowser func(ctx context.Context, url string) error
	// Stderr hears what the person has to do; nil: nothing.
	Stderr io.Writer
	// NoQR leaves out the QR code of the device flow, for a Stderr that is no terminal.
	NoQR bool
	// Now tells the time that tokens are judged by: the gateway's, where the
	// offset is known. Nil: this computer's.
	Now func() time.Time
	// Timeout is how long a person has; 0 means 5 minutes.
	Timeout time.Duration
	// Trust is the command that makes the profile anew from what its gateway says
	// now; empty means `kubectl zt trust`.
	Trust string
	// Transport replaces the network; nil: a new one for CAPEM.
	Transport http.RoundTripper
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	if err := checkEndpoint("issuer", string(c.Issuer)); err != nil {
		errs = append(errs, err)
	} else if strings.ContainsAny(string(c.Issuer), "?#") {
		errs = append(errs, fmt.Errorf("issuer %q: no query and no fragment allowed", c.Issuer))
	}
	if c.ClientID == "" {
		errs = append(errs, errors.New("client id is empty"))
	}
	if _, err := parsePool(c.CAPEM); err != nil {
		errs = append(errs, err)
	}
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout %s is negative", c.Timeout))
	}
	return errors.Join(errs...)
}

// Client speaks with one provider for one profile. It may be used from several
// goroutines; Refresh is the exception, see there.
type Client struct {
	cfg       Config
	transport http.RoundTripper
	provider  *oidc.Provider
	metadata  metadata
	oauth     oauth2.Config
	verifier  *oidc.IDTokenVerifier
}

// metadata is what go-oidc does not read from the discovery document.
type metadata struct {
	JWKS           string   `json:"jwks_uri"`
	Revocation     string   `json:"revocation_endpoint"`
	Algorithms     []string `json:"id_token_signing_alg_values_supported"`
	PKCE           []string `json:"code_challenge_methods_supported"`
	PromisesIssuer bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207
}

// New reads the discovery document. It sends nothing that is secret. Call Close
// when the Client is of no more use.
func New(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Trust == "" {
		cfg.Trust = "kubectl zt trust"
	}
	if err := cfg.Validate(); err != nil {
		return nil, refuse(opDiscover, nil, cfg.Trust, "%v", err)
	}
	if cfg.Stderr == nil {
		cfg.Stderr = io.Discard
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Transport == nil {
		pool, err := parsePool(cfg.CAPEM)
		if err != nil {
			return nil, refuse(opDiscover, nil, cfg.Trust, "%v", err)
		}
		cfg.Transport = newTransport(pool)
	}
	cfg.Scopes = slices.Clone(cfg.Scopes)
	if !slices.Contains(cfg.Scopes, oidc.ScopeOpenID) {
		cfg.Scopes = append([]string{oidc.ScopeOpenID}, cfg.Scopes...)
	}
	c := &Client{cfg: cfg, transport: cfg.Transport}
	ctx = c.begin(ctx)
	if err := c.discover(ctx); err != nil {
		c.Close()
		return nil, c.explain(ctx, opDiscover, err)
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Issuer is the provider's name for itself, and the profile's for it.
func (c *Client) Issuer() wire.Issuer { return c.cfg.Issuer }

// discover fetches and checks the discovery document. That its issuer is the one
// asked for, byte by byte, is go-oidc's check.
func (c *Client) discover(ctx context.Context) error {
	provider, err := oidc.NewProvider(ctx, string(c.cfg.Issuer))
	if err != nil {
		return err
	}
	if err := provider.Claims(&c.metadata); err != nil {
		return fmt.Errorf("discovery document: %w", err)
	}
	endpoint := provider.Endpoint()
	// A public client has no secret to send. Asked to find out by itself, x/oauth2
	// tries an empty one first, and some providers then refuse the device grant.
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	for _, e := range []struct {
		name, value string
		required    bool
	}{
		{"authorization_endpoint", endpoint.AuthURL, true},
		{"token_endpoint", endpoint.TokenURL, true},
		{"jwks_uri", c.metadata.JWKS, true},
		{"device_authorization_endpoint", endpoint.DeviceAuthURL, false},
		{"userinfo_endpoint", provider.UserInfoEndpoint(), false},
		{"revocation_endpoint", c.metadata.Revocation, false},
	} {
		if e.value == "" && !e.required {
			continue
		}
		if err := checkEndpoint(e.name, e.value); err != nil {
			return refuse(opDiscover, ErrUntrusted, askProvider, "%v", err)
		}
	}
	// This one is shown on a terminal and given to a browser (V077).
	if !printableASCII(endpoint.AuthURL) {
		return refuse(opDiscover, ErrUntrusted, askProvider, "authorization_endpoint %q is not printable ASCII", endpoint.AuthURL)
	}
	c.provider = provider
	c.oauth = oauth2.Config{ClientID: c.cfg.ClientID, Endpoint: endpoint, Scopes: c.cfg.Scopes}
	// Keys are cached for the life of the Client and fetched again for a key id
	// that is not among them; a fetch outlives the operation that asked for it.
	keys := oidc.NewRemoteKeySet(c.begin(context.WithoutCancel(ctx)), c.metadata.JWKS)
	c.verifier = oidc.NewVerifier(string(c.cfg.Issuer), keySet{keys}, &oidc.Config{
		ClientID:             c.cfg.ClientID,
		SupportedSigningAlgs: asymmetric(c.metadata.Algorithms),
		Now:                  c.cfg.Now,
	})
	return nil
}

// asymmetric is the provider's list of algorithms without those whose key is a
// shared secret, or nothing at all. An empty list means RS256 to go-oidc.
func asymmetric(offered []string) []string {
	known := []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
		oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
	}
	return slices.DeleteFunc(slices.Clone(offered), func(a string) bool { return !slices.Contains(known, a) })
}

// checkEndpoint demands https: what goes there is a code, a verifier or a token.
func checkEndpoint(name, value string) error {
	u, err := url.Parse(value)
	switch {
	case value == "":
		return fmt.Errorf("%s is missing", name)
	case err != nil || u.Host == "" || u.Opaque != "":
		return fmt.Errorf("%s %q is not a URL", name, value)
	case u.Scheme != "https":
		return fmt.Errorf("%s %q is not https", name, value)
	case u.User != nil:
		return fmt.Errorf("%s %q carries credentials", name, u.Redacted())
	}
	return nil
}
