package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"

	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// FurtherOptions are what the configuration must agree with.
type FurtherOptions struct {
	// LoginClientID is the login client's audience at the identity provider. A
	// further issuer that accepts it is an error: an ID token caught at a login
	// would open the API without a device.
	LoginClientID string
	// ControlIssuer is the "iss" of control's tokens, which nobody else may use.
	ControlIssuer string
	// UsernamePrefix is zt's own: no mapped name may begin with it.
	UsernamePrefix string

	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Fetched is told of every fetch of keys; may be nil.
	Fetched func(issuer wire.Issuer, at time.Time, err error)
	// Checked is told "hit", "ok" or "refused"; may be nil.
	Checked func(result string)
	// Transport replaces the way to the issuers in tests.
	Transport http.RoundTripper
}

// FurtherIssuers verifies tokens of the issuers in an AuthenticationConfiguration.
// It is shared by all clusters.
type FurtherIssuers struct {
	o        FurtherOptions
	lifetime context.Context //nolint:containedctx // of what oidc.New starts, whenever it is called
	compiler authenticationcel.Compiler
	set      atomic.Pointer[issuerSet]
}

// issuerSet is what one reading of the configuration accepts. It is never changed.
type issuerSet struct {
	issuers map[string]*furtherIssuer
	cache   *cache
}

type furtherIssuer struct {
	config   apiserver.JWTAuthenticator
	keys     *keySet
	delegate oidc.AuthenticatorTokenWithHealthCheck
}

// NewFurtherIssuers reads an AuthenticationConfiguration
// (apiserver.config.k8s.io/v1) strictly. It fetches nothing and starts nothing:
// keys are fetched when the first token comes, and by Run. lifetime bounds the
// use of the result.
func NewFurtherIssuers(lifetime context.Context, config []byte, o FurtherOptions) (*FurtherIssuers, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fetched == nil {
		o.Fetched = func(wire.Issuer, time.Time, error) {}
	}
	if o.Checked == nil {
		o.Checked = func(string) {}
	}
	f := &FurtherIssuers{o: o, lifetime: lifetime, compiler: authenticationcel.NewDefaultCompiler()}
	f.set.Store(&issuerSet{})
	if err := f.Reload(config); err != nil {
		return nil, err
	}
	return f, nil
}

// Reload accepts from now on what config says. After an error everything is as
// it was. An issuer whose part of the configuration is the same keeps its keys,
// also while it cannot be reached; identities of one that is gone, or is another
// now, are no longer [FurtherIssuers.Stands]. Calls must not overlap.
func (f *FurtherIssuers) Reload(config []byte) error {
	authenticators, err := decode(config, f.compiler, f.o)
	if err != nil {
		return err
	}
	old, next := f.set.Load(), &issuerSet{issuers: map[string]*furtherIssuer{}, cache: newCache(f.o.Now)}
	for _, a := range authenticators {
		issuer := old.issuers[a.Issuer.URL]
		if issuer == nil || !reflect.DeepEqual(issuer.config, a) {
			if issuer, err = f.newIssuer(a); err != nil {
				return fmt.Errorf("issuer %q: %w", a.Issuer.URL, err)
			}
		}
		next.issuers[a.Issuer.URL] = issuer
	}
	f.set.Store(next)
	return nil
}

// Stands reports whether the rules by which id was accepted are those of now.
func (f *FurtherIssuers) Stands(id *Identity) bool {
	return f != nil && id.issuer != nil && f.set.Load().issuers[string(id.User.Issuer)] == id.issuer
}

func (f *FurtherIssuers) newIssuer(a apiserver.JWTAuthenticator) (*furtherIssuer, error) {
	o := &f.o
	transport := o.Transport
	if transport == nil {
		var roots *x509.CertPool
		if pem := a.Issuer.CertificateAuthority; pem != "" {
			roots = x509.NewCertPool()
			if !roots.AppendCertsFromPEM([]byte(pem)) {
				return nil, errors.New("certificateAuthority holds no certificate")
			}
		}
		transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     trust.IssuerClient(roots),
			TLSHandshakeTimeout: fetchTimeout,
			IdleConnTimeout:     time.Minute,
			MaxIdleConns:        2,
			ForceAttemptHTTP2:   true,
		}
	}
	discovery := a.Issuer.DiscoveryURL
	if discovery == "" {
		discovery = strings.TrimSuffix(a.Issuer.URL, "/") + "/.well-known/openid-configuration"
	}
	keys := &keySet{
		issuer:    wire.Issuer(a.Issuer.URL),
		discovery: discovery,
		client: &http.Client{
			Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("redirects are not followed")
			},
		},
		now:        o.Now,
		fetched:    o.Fetched,
		algorithms: algorithms,
	}
	// A key set of our own excludes the discovery URL, which is ours to follow.
	config := a
	config.Issuer.DiscoveryURL = ""
	delegate, err := oidc.New(f.lifetime, oidc.Options{
		JWTAuthenticator:     config,
		KeySet:               keys,
		Client:               &http.Client{Transport: nowhere{}},
		Compiler:             f.compiler,
		SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
	})
	if err != nil {
		return nil, err
	}
	return &furtherIssuer{config: a, keys: keys, delegate: delegate}, nil
}

// nowhere is the delegate's way out: there is none. It would be taken for
// distributed claims, whose address comes out of the token.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no address out of a token is ever called")
}

// Issuers lists the accepted issuers.
func (f *FurtherIssuers) Issuers() []wire.Issuer {
	var list []wire.Issuer
	for issuer := range f.set.Load().issuers {
		list = append(list, wire.Issuer(issuer))
	}
	slices.Sort(list)
	return list
}

// MayName reports whether name could be that of somebody, or of a group, at a
// further issuer. Whoever logs in through zt must not have it: a role holds names
// and not issuers. Where an expression makes the names, every name with a prefix
// could be one. A nil f names nobody.
func (f *FurtherIssuers) MayName(name string) bool {
	if f == nil {
		return false
	}
	for _, issuer := range f.set.Load().issuers {
		m := &issuer.config.ClaimMappings
		for _, mapping := range []apiserver.PrefixedClaimOrExpression{m.Username, m.Groups} {
			switch {
			case mapping.Expression != "" && strings.IndexByte(name, ':') > 0:
				return true
			case mapping.Prefix != nil && *mapping.Prefix != "" && strings.HasPrefix(name, *mapping.Prefix):
				return true
			}
		}
	}
	return false
}

// ExtraKeys are the extra keys that claims are mapped to, for the rights of the
// gateway's own account.
func (f *FurtherIssuers) ExtraKeys() []string {
	var keys []string
	for _, issuer := range f.set.Load().issuers {
		for _, extra := range issuer.config.ClaimMappings.Extra {
			keys = append(keys, extra.Key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Run fetches keys ahead of need, until ctx ends.
func (f *FurtherIssuers) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		for _, issuer := range f.set.Load().issuers {
			if issuer.keys.stale() {
				issuer.keys.refresh(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Authenticate implements Authenticator.
func (f *FurtherIssuers) Authenticate(ctx context.Context, raw string) (*Identity, *wire.Refusal) {
	sum := digest(raw)
	if identity, ok := f.remembered(sum); ok {
		return identity, nil
	}
	form, err := parse(raw)
	if err != nil {
		f.o.Checked("refused")
		return nil, refuseForm(err)
	}
	return f.authenticate(ctx, raw, form, sum)
}

func (f *FurtherIssuers) remembered(sum [sha256.Size]byte) (*Identity, bool) {
	entry, ok := f.set.Load().cache.get(sum)
	if ok {
		f.o.Checked("hit")
	}
	return entry.identity, ok
}

func (f *FurtherIssuers) authenticate(ctx context.Context, raw string, form *unverified, sum [sha256.Size]byte) (*Identity, *wire.Refusal) {
	set := f.set.Load() // what one set has accepted, another does not remember
	identity, refusal := f.verify(ctx, set.issuers[form.issuer], raw, form)
	if refusal != nil {
		f.o.Checked("refused")
		return nil, refusal
	}
	f.o.Checked("ok")
	set.cache.put(sum, cached{identity: identity}, identity.Expires)
	return identity, nil
}

func (f *FurtherIssuers) verify(ctx context.Context, issuer *furtherIssuer, raw string, form *unverified) (*Identity, *wire.Refusal) {
	if issuer == nil {
		return nil, because(invalid("its issuer is not accepted"), "iss: expected one of %q, got %.200q", f.Issuers(), form.issuer)
	}
	if err := idToken(form); err != nil {
		return nil, invalid("%v", err)
	}
	if err := form.current(f.o.Now()); err != nil {
		return nil, refuseTime(err)
	}
	if err := issuer.email(form); err != nil {
		return nil, invalid("%v", err)
	}
	ctx, notes := withNotes(ctx)
	response, ok, err := issuer.delegate.AuthenticateToken(ctx, raw)
	switch {
	case notes.cold:
		// Nobody can be known before the issuer was reached once. 403, because
		// the text of a 401 is never shown to the person.
		return nil, &wire.Refusal{
			Reason: wire.ReasonIdPUnreachable, Code: http.StatusForbidden,
			Message: fmt.Sprintf("the gateway cannot reach the issuer %s to check tokens", form.issuer),
			Hint:    "try again in a minute; if it lasts, tell your administrator",
		}
	case notes.unreachable:
		return nil, wire.Refuse(wire.ReasonIdPUnreachable, "try again in a minute",
			"the token is signed with a key that could not be fetched from %s", form.issuer)
	case err != nil:
		return nil, because(invalid("it does not fit the issuer's rules"), "%v", err)
	case !ok:
		return nil, invalid("it does not fit the issuer's rules")
	}
	identity, refusal := f.identity(form, response.User, notes)
	if refusal == nil {
		identity.issuer = issuer
	}
	return identity, refusal
}

// idToken refuses tokens that were made for something else.
func idToken(form *unverified) error {
	switch {
	case !knownAlgorithm(form.alg):
		return errors.New("its algorithm is not accepted")
	case form.typ != "" && !strings.EqualFold(form.typ, "JWT"):
		return errors.New("its type is not that of an ID token")
	}
	_, err := audience(form.claims["aud"])
	return err
}

// email is stricter than Kubernetes' authenticator: an address that is a name
// must be verified, not merely not unverified.
func (i *furtherIssuer) email(form *unverified) error {
	if i.config.ClaimMappings.Username.Claim != "email" {
		return nil
	}
	if string(form.claims["email_verified"]) != "true" {
		return errors.New("its e-mail address is not verified")
	}
	if address, err := text(form.claims["email"]); err != nil || strings.Count(address, "@") != 1 {
		return errors.New("its e-mail address is none")
	}
	return nil
}

func (f *FurtherIssuers) identity(form *unverified, info user.Info, n *notes) (*Identity, *wire.Refusal) {
	name := info.GetName()
	if why := f.reserved(name); why != "" {
		return nil, refuseReserved("user name", why)
	}
	for _, group := range info.GetGroups() {
		if why := f.reserved(group); why != "" {
			return nil, refuseReserved("group", why)
		}
	}
	if uid := info.GetUID(); uid != "" && (len(uid) > nameLimit || !headerSafe(uid)) {
		return nil, refuseReserved("uid", "holds characters that a header cannot carry")
	}
	identity := &Identity{
		Kind:            Further,
		User:            wire.User{Issuer: wire.Issuer(form.issuer), Subject: wire.Subject(form.subject), Name: wire.Username(name)},
		Name:            name,
		Groups:          info.GetGroups(),
		GroupsElsewhere: n.elsewhere,
		UID:             info.GetUID(),
		Issued:          form.issued,
		Expires:         form.expires,
		Device:          wire.Device{Tier: "none"},
		evaluated:       new(atomic.Pointer[evaluation]),
	}
	for key, values := range info.GetExtra() {
		// The credential id is Kubernetes' to set, and one value per token
		// would defeat the API server's impersonation cache.
		if key == user.CredentialIDKey {
			continue
		}
		for _, value := range values {
			if value == "" || len(value) > nameLimit || !headerSafe(value) {
				return nil, refuseReserved("extra value", "is empty, too long, or holds characters that a header cannot carry")
			}
		}
		if identity.Extra == nil {
			identity.Extra = map[string][]string{}
		}
		identity.Extra[key] = values
	}
	return identity, nil
}

// reserved also demands a prefix: a name without one could be taken for that
// of somebody who logged in through zt, in a role as well as in RBAC.
func (f *FurtherIssuers) reserved(name string) string {
	if why := reserved(name, f.o.UsernamePrefix, "zt:"); why != "" {
		return why
	}
	if i := strings.IndexByte(name, ':'); i < 1 || i == len(name)-1 {
		return "has no prefix like ci: in front"
	}
	return ""
}
