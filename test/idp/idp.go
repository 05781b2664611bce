package idp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Options of a provider. The zero value is useful.
type Options struct {
	// Addr is where to listen; "127.0.0.1:0" by default. Loopback only.
	Addr string
	// ClientID of the one public client; "kubectl-zt" by default.
	ClientID string
	// RedirectPaths are the paths of allowed loopback redirects; "/callback" by default.
	RedirectPaths []string
	// Users; DefaultUsers() by default.
	Users []User
	// SecondFactor asks for a one-time code after the password.
	SecondFactor bool
	// IDTokenLife, AccessTokenLife and RefreshTokenLife default to 1 h, 1 h and 24 h.
	IDTokenLife, AccessTokenLife, RefreshTokenLife time.Duration
	// DeviceLife and DeviceInterval of the device grant default to 10 min and 5 s.
	DeviceLife, DeviceInterval time.Duration
	// Algorithm that signs tokens: RS256 (default) or ES256.
	Algorithm jose.SignatureAlgorithm
	// JWTAccessTokens makes access tokens signed JWTs instead of opaque strings.
	JWTAccessTokens bool
	// Logger hears the library; nil is silent.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.IDTokenLife, time.Hour)
	def(&o.AccessTokenLife, time.Hour)
	def(&o.RefreshTokenLife, 24*time.Hour)
	def(&o.DeviceLife, 10*time.Minute)
	def(&o.DeviceInterval, 5*time.Second)
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.ClientID == "" {
		o.ClientID = "kubectl-zt"
	}
	if o.RedirectPaths == nil {
		o.RedirectPaths = []string{"/callback"}
	}
	if o.Users == nil {
		o.Users = DefaultUsers()
	}
	if o.Algorithm == "" {
		o.Algorithm = jose.RS256
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Provider is a running OpenID provider. Its methods may be called at any time
// from any goroutine.
type Provider struct {
	opts      Options
	alg       jose.SignatureAlgorithm
	issuer    string
	authority *authority
	storage   *storage
	library   http.Handler
	pages     http.Handler
	server    *http.Server
	served    chan struct{}

	mu       sync.Mutex
	faults   Faults
	counters Counters
	polls    []time.Time
	tickets  map[string]*ticket
}

// Start listens and serves until Close, or until ctx ends.
func Start(ctx context.Context, opts Options) (*Provider, error) {
	opts = opts.withDefaults()
	ca, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("start idp: %w", err)
	}
	key, err := newSigningKey(opts.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("start idp: %w", err)
	}
	p := &Provider{
		opts: opts, alg: opts.Algorithm, authority: ca,
		served: make(chan struct{}), tickets: map[string]*ticket{},
	}
	if p.storage, err = newStorage(opts, key, func() { p.count(func(c *Counters) { c.Reuses++ }) }); err != nil {
		return nil, fmt.Errorf("start idp: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("start idp: %w", err)
	}
	addr := listener.Addr().(*net.TCPAddr)
	if !addr.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("start idp: %s is not a loopback address", addr), listener.Close())
	}
	p.issuer = "https://" + addr.String()
	if p.library, err = p.newLibrary(); err != nil {
		return nil, errors.Join(fmt.Errorf("start idp: %w", err), listener.Close())
	}
	p.pages = p.newPages()
	p.serve(ctx, listener)
	return p, nil
}

func newStorage(opts Options, key signingKey, reused func()) (*storage, error) {
	c := &client{id: opts.ClientID, idTokenLife: opts.IDTokenLife, accessType: op.AccessTokenTypeBearer}
	if opts.JWTAccessTokens {
		c.accessType = op.AccessTokenTypeJWT
	}
	for _, path := range opts.RedirectPaths {
		c.redirects = append(c.redirects, "http://127.0.0.1"+path)
	}
	s := &storage{
		client: c, accessLife: opts.AccessTokenLife, refreshLife: opts.RefreshTokenLife, reused: reused,
		keys:     []signingKey{key},
		requests: map[string]*authRequest{}, codes: map[string]string{}, spent: map[string]string{},
		access: map[string]*accessToken{}, refresh: map[string]*refreshToken{},
		families: map[string]*family{}, devices: map[string]*deviceGrant{},
	}
	for _, u := range opts.Users {
		u, err := u.clone().complete()
		if err != nil {
			return nil, err
		}
		s.users = append(s.users, u)
	}
	return s, nil
}

// newLibrary builds zitadel's provider. Its endpoints stay at the library's own
// places: the options that move them write to a variable of the package.
func (p *Provider) newLibrary() (http.Handler, error) {
	config := &op.Config{
		DefaultLogoutRedirectURI: pathLoggedOut,
		CodeMethodS256:           true,
		AuthMethodPost:           true,
		GrantTypeRefreshToken:    true,
		SupportedScopes:          []string{"openid", "profile", "email", "groups", "offline_access"},
		SupportedClaims: []string{
			"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "amr", "azp", "at_hash",
			"email", "email_verified", "name", "preferred_username", "groups",
		},
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime:     p.opts.DeviceLife,
			PollInterval: p.opts.DeviceInterval,
			UserFormPath: pathDevice,
			UserCode:     op.UserCodeBase20,
		},
	}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, fmt.Errorf("make crypto key: %w", err)
	}
	return op.NewProvider(config, p.storage, op.StaticIssuer(p.issuer),
		op.WithLogger(p.opts.Logger), op.WithCORSOptions(nil))
}

func (p *Provider) serve(ctx context.Context, listener net.Listener) {
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // aborted handlers are switches at work
		TLSConfig: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{p.authority.leaf},
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = p.server.Close() })
	go func() {
		defer close(p.served)
		defer stop()
		_ = p.server.ServeTLS(listener, "", "") // ends only by Close
	}()
}

// Close cuts every connection, stops listening and waits for the server's end.
func (p *Provider) Close() error {
	err := p.server.Close()
	<-p.served
	return err
}

// Issuer is the provider's identifier, an https URL without a trailing slash.
func (p *Provider) Issuer() string { return p.issuer }

// ClientID is the id of the one registered client.
func (p *Provider) ClientID() string { return p.opts.ClientID }

// CAPEM is the certificate authority to trust for the issuer.
func (p *Provider) CAPEM() []byte { return slices.Clone(p.authority.caPEM) }

// CAPool is CAPEM as a pool.
func (p *Provider) CAPool() *x509.CertPool { return p.authority.pool.Clone() }

// User returns a person by login, e-mail or subject, with password and code.
func (p *Provider) User(name string) (User, bool) { return p.storage.user(name) }

// SetUserGroups replaces a person's groups, from the next token on.
func (p *Provider) SetUserGroups(name string, groups ...string) error {
	return p.storage.edit(name, func(u *User) { u.Groups = slices.Clone(groups) })
}

// EditUser changes a person, from the next token on.
func (p *Provider) EditUser(name string, change func(*User)) error {
	return p.storage.edit(name, change)
}
