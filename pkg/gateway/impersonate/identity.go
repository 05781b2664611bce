package impersonate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/kube-zt/zt/pkg/wire"
)

// GroupPrefix makes a role a group toward Kubernetes.
const GroupPrefix = "zt:"

// Identity is whom the API server shall see. It is not changed once it was
// given to WithIdentity.
type Identity struct {
	User  string
	UID   string
	Roles []wire.Role
	// Extra keys in any letters; nil values and empty ones are left out.
	Extra map[string][]string

	// These three become the extra keys of package wire where not empty.
	Device   wire.DeviceID
	Session  wire.SessionID
	ClientIP string

	// Proxied says that an application answers, behind a proxy sub-resource: a
	// 401 may then be the application's.
	Proxied bool

	// AuditID joins the cluster's audit to ours.
	AuditID wire.DecisionID
}

type identityKey struct{}

// WithIdentity hands id to the Transport.
func WithIdentity(ctx context.Context, id *Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// UserOf is whom a request is sent in the name of, "" where in nobody's.
func UserOf(ctx context.Context) string {
	if id, _ := ctx.Value(identityKey{}).(*Identity); id != nil {
		return id.User
	}
	return ""
}

var errIncomplete = errors.New("no complete identity to impersonate")

// The extra headers that every request carries; a dot needs no escape, a slash
// does.
const (
	extraDevice   = headerExtra + "Kube-Zt.io%2fdevice"
	extraSession  = headerExtra + "Kube-Zt.io%2fsession"
	extraClientIP = headerExtra + "Kube-Zt.io%2fclient-Ip"
)

// write puts id into h and removes every other impersonation from it.
func (id *Identity) write(h http.Header) error {
	if id == nil {
		return errIncomplete
	}
	for name := range h {
		if looksLikeImpersonation(name) {
			delete(h, name)
		}
	}
	if err := id.check(); err != nil {
		return err
	}
	h[headerUser] = []string{id.User}
	if id.UID != "" {
		h[headerUID] = []string{id.UID}
	}
	if len(id.Roles) > 0 {
		groups := make([]string, len(id.Roles))
		for i, role := range id.Roles {
			groups[i] = GroupPrefix + string(role)
		}
		h[headerGroup] = groups
	}
	for key, values := range id.Extra {
		if len(values) > 0 {
			h[headerExtra+escapeKey(key)] = values
		}
	}
	single(h, extraDevice, string(id.Device))
	single(h, extraSession, string(id.Session))
	single(h, extraClientIP, id.ClientIP)
	h["Audit-Id"] = []string{string(id.AuditID)}
	return nil
}

func single(h http.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

// check is the last line before the wire: what is refused here was let through
// by mistake before.
func (id *Identity) check() error {
	if id.User == "" || id.AuditID == "" {
		return errIncomplete
	}
	if system(id.User) {
		return fmt.Errorf("user %q is Kubernetes' own", id.User)
	}
	for _, role := range id.Roles {
		if role == "" || strings.ContainsAny(string(role), ":/ ") {
			return fmt.Errorf("role %q is none", role)
		}
	}
	for key, values := range id.Extra {
		if key == "" || strings.HasPrefix(key, "kube-zt.io/") {
			return fmt.Errorf("extra key %q is not a claim's", key)
		}
		for _, value := range values {
			if value == "" {
				return fmt.Errorf("extra key %q has an empty value", key)
			}
		}
	}
	return nil
}

// system reports whether Kubernetes gives name a meaning of its own.
func system(name string) bool {
	const reserved = "system:"
	return len(name) >= len(reserved) && strings.EqualFold(name[:len(reserved)], reserved)
}

// escapeKey writes an extra key so that the API server reads back the very same:
// it lowers the header's name and then resolves percent escapes, so capitals
// survive only as escapes.
func escapeKey(key string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
