package login

import (
	"errors"
	"fmt"
	"log/slog"
)

// Secret is a token. It prints and logs as a placeholder by every verb, and is
// not marshalled at all: whoever wants it on a wire says so with Reveal. (fmt
// cannot call methods on unexported fields: keep it in exported ones.)
type Secret string

const redacted = "[secret]"

var (
	_ fmt.Formatter  = Secret("")
	_ slog.LogValuer = Secret("")
)

// Reveal is the token itself.
func (s Secret) Reveal() string { return string(s) }

// String is the placeholder, or nothing for no token.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is the placeholder.
func (s Secret) GoString() string { return s.String() }

// Format prints the placeholder whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is the placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText always fails: neither a leak nor a placeholder that is later taken
// for a token.
func (Secret) MarshalText() ([]byte, error) {
	return nil, errors.New("login: a secret is not marshalled by accident; use Reveal")
}
