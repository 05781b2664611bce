package authn

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kube-zt/zt/pkg/wire"
)

// Kind says whose word an identity is.
type Kind int

const (
	// Control is an access token of our own: bound to a device key, with roles.
	Control Kind = iota + 1
	// Further is a token of another issuer: a plain bearer of tier none.
	Further
)

// Identity is a verified person or machine. It is shared between requests and
// never changed.
type Identity struct {
	Kind Kind
	// User holds issuer, subject and the name without zt's prefix. For a
	// further issuer the name is the mapped one, with that issuer's prefix.
	User wire.User
	// Name is what Kubernetes will see.
	Name string
	// Groups are the mapped groups of a further issuer. They feed roles and
	// never go to Kubernetes.
	Groups []string
	// GroupsElsewhere says that the token only names a place to ask for groups
	// (OpenID Connect Core 5.6.2). Nobody asks there, so Groups is empty.
	GroupsElsewhere bool
	UID             string
	Extra           map[string][]string

	Issued  time.Time
	Expires time.Time

	// The rest is set for Kind Control only.
	Session wire.SessionID
	Key     wire.Thumbprint // cnf.jkt
	Roles   []wire.Role
	Revoked []wire.Role // seen by Denies alone
	Device  wire.Device
	Epoch   wire.Epoch

	evaluated *atomic.Pointer[evaluation] // nil: not remembered
	issuer    *furtherIssuer              // by whose rules a further issuer's token was accepted
}

// evaluation is what roles an identity was found to hold by one version of the
// policies.
type evaluation struct {
	by    any
	roles []wire.Role
}

// RolesBy returns what evaluate finds for the policies by, and remembers the
// last answer: a further issuer's token holds no roles, and is the same for
// many requests. by must be comparable.
func (i *Identity) RolesBy(by any, evaluate func() []wire.Role) []wire.Role {
	if i.evaluated == nil {
		return evaluate()
	}
	e := i.evaluated.Load()
	if e == nil || e.by != by {
		e = &evaluation{by, evaluate()}
		i.evaluated.Store(e)
	}
	return e.roles
}

// An Authenticator verifies one token. It never returns both nil; a refusal's
// text holds nothing of the token.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (*Identity, *wire.Refusal)
}

// nameLimit is the longest user name, group or extra value, in bytes.
const nameLimit = 256

// reserved says why name must not become a user or group in Kubernetes; empty
// when it may. prefixes are zt's own.
func reserved(name string, prefixes ...string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > nameLimit:
		return "is longer than 256 bytes"
	case strings.HasPrefix(strings.ToLower(name), "system:"):
		return "begins with system:, which is Kubernetes' own"
	case !headerSafe(name):
		return "holds characters that a header cannot carry"
	}
	for _, p := range prefixes {
		if p != "" && strings.HasPrefix(name, p) {
			return "begins with " + p + ", which is zt's own"
		}
	}
	return ""
}

// headerSafe reports whether s reaches the API server byte for byte as a header
// value: valid UTF-8, only printable characters, no space at either end (which
// parsers trim).
func headerSafe(s string) bool {
	if !utf8.ValidString(s) || strings.TrimSpace(s) != s {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func refuseReserved(what, why string) *wire.Refusal {
	return wire.Refuse(wire.ReasonReservedIdentity, "ask your administrator to map another claim",
		"the %s that the token maps to %s", what, why)
}

// invalid is the answer to everything that is not genuine. The text says what is
// wrong and not what would be right: that goes to the audit log only.
func invalid(format string, args ...any) *wire.Refusal {
	return wire.Refuse(wire.ReasonTokenInvalid, "kubectl zt login", "the token is not valid here: "+format, args...)
}

// because adds to a refusal what only the log says: what was expected and what
// came.
func because(refusal *wire.Refusal, format string, args ...any) *wire.Refusal {
	refusal.Cause = fmt.Sprintf(format, args...)
	return refusal
}
