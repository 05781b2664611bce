package authn

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// tokenLimit is the longest token that is looked at, in bytes. net/http
	// answers 431 to headers above 64 KiB before we see anything.
	tokenLimit = 60 << 10
	// LoginLimit is the longest ID token with which somebody may log in, in bytes:
	// five thousand groups named by UUID. It comes in a body and goes no further.
	LoginLimit = 256 << 10
	// depthLimit is how deep a claim may nest.
	depthLimit = 16
	// skew is how far another issuer's clock may be ahead of ours.
	skew = time.Minute
	// latest is 9999-12-31T23:59:59Z: beyond it a time is nonsense.
	latest = 253402300799
)

// unverified is a token that has the right form. Its claims are not to be
// believed until the signature is.
type unverified struct {
	alg, kid, typ string
	issuer        string
	subject       string
	expires       time.Time
	issued        time.Time
	notBefore     time.Time
	claims        map[string]json.RawMessage
}

// errTooLarge is told apart because its answer is 431, not 401.
var errTooLarge = errors.New("token is too large")

// refuseForm answers for a token of the wrong form.
func refuseForm(err error) *wire.Refusal {
	if errors.Is(err, errTooLarge) {
		return &wire.Refusal{Reason: wire.ReasonTooLarge, Code: http.StatusRequestHeaderFieldsTooLarge, Message: "the token is too large"}
	}
	return invalid("%v", err)
}

// parse reads a token that a request carries.
func parse(raw string) (*unverified, error) { return parseUpTo(tokenLimit, raw) }

// parseUpTo demands the form that the package comment promises (RFC 7515 section
// 4.1, RFC 7519 section 4, RFC 8725 section 3).
func parseUpTo(most int, raw string) (*unverified, error) {
	if len(raw) > most {
		return nil, errTooLarge
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("not three parts")
	}
	header, err := object(parts[0])
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	t := &unverified{}
	for name, value := range header {
		switch name {
		case "alg":
			t.alg, err = text(value)
		case "kid":
			t.kid, err = text(value)
			if err == nil && !plainKeyID(t.kid) {
				err = errors.New("key id with characters of a path or a query")
			}
		case "typ":
			t.typ, err = text(value)
		case "x5t", "x5t#S256":
			// A hash of a certificate says nothing that we would follow.
			_, err = text(value)
		default:
			err = fmt.Errorf("parameter %q is not accepted", clip(name))
		}
		if err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
	}
	if parts[2] == "" {
		return nil, errors.New("no signature")
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return nil, errors.New("signature is not base64url")
	}

	if t.claims, err = object(parts[1]); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if _, ok := t.claims["events"]; ok {
		return nil, errors.New("it is a logout or event token")
	}
	if t.issuer, err = text(t.claims["iss"]); err != nil || t.issuer == "" {
		return nil, errors.New("claims: no issuer")
	}
	if t.subject, err = text(t.claims["sub"]); err != nil || t.subject == "" || len(t.subject) > nameLimit || !headerSafe(t.subject) {
		return nil, errors.New("claims: no usable subject")
	}
	if t.expires, err = numericDate(t.claims["exp"]); err != nil {
		return nil, fmt.Errorf("claims: exp: %w", err)
	}
	if t.issued, err = numericDate(t.claims["iat"]); err != nil {
		return nil, fmt.Errorf("claims: iat: %w", err)
	}
	if value, ok := t.claims["nbf"]; ok {
		if t.notBefore, err = numericDate(value); err != nil {
			return nil, fmt.Errorf("claims: nbf: %w", err)
		}
	}
	return t, nil
}

// current checks the times against now, all inclusive of skew but the end: a
// token that has ended is over.
func (t *unverified) current(now time.Time) error {
	switch {
	case !now.Before(t.expires):
		return errExpired
	case t.issued.After(now.Add(skew)):
		return errors.New("issued in the future")
	case t.notBefore.After(now.Add(skew)):
		return errors.New("not valid yet")
	}
	return nil
}

var errExpired = errors.New("token has expired")

// plainKeyID keeps to characters that mean nothing to a file system, a URL or a
// query language. A key id is only ever compared, never followed.
func plainKeyID(kid string) bool {
	if len(kid) > nameLimit {
		return false
	}
	for i := range len(kid) {
		c := kid[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-_.~=+@", c) >= 0:
		default:
			return false
		}
	}
	return !strings.Contains(kid, "..")
}

// object decodes one part into its members.
func object(part string) (map[string]json.RawMessage, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errors.New("not base64url without padding")
	}
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := unique(decoder, 0); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil || members == nil {
		return nil, errors.New("not a JSON object")
	}
	return members, nil
}

// unique walks one value and fails on a name that stands twice in an object,
// in whatever letters: encoding/json, which reads the claims later, takes the
// last of "sub" and "SUB" for the same field.
func unique(decoder *json.Decoder, depth int) error {
	if depth > depthLimit {
		return errors.New("nested too deep")
	}
	token, err := decoder.Token()
	if err != nil {
		return errors.New("not JSON")
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for decoder.More() {
		if delim == '{' {
			name, err := decoder.Token()
			if err != nil {
				return errors.New("not JSON")
			}
			// ToUpper then ToLower folds the few letters (ſ, K) that ToLower
			// alone keeps apart and encoding/json does not.
			folded := strings.ToLower(strings.ToUpper(name.(string)))
			if seen[folded] {
				return fmt.Errorf("%q stands twice", clip(name.(string)))
			}
			seen[folded] = true
		}
		if err := unique(decoder, depth+1); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return errors.New("not JSON")
	}
	return nil
}

func text(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", errors.New("not text")
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", errors.New("not text")
	}
	return s, nil
}

// numericDate reads seconds since 1970 (RFC 7519 section 2), fractions allowed.
func numericDate(raw json.RawMessage) (time.Time, error) {
	if len(raw) == 0 {
		return time.Time{}, errors.New("missing")
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(seconds >= 1 && seconds <= latest) {
		return time.Time{}, errors.New("not a time")
	}
	return time.Unix(int64(seconds), 0), nil
}

// audience reads "aud", one text or a list of them.
func audience(raw json.RawMessage) ([]string, error) {
	if one, err := text(raw); err == nil {
		return []string{one}, nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil || len(many) == 0 || slices.Contains(many, "") {
		return nil, errors.New("claims: no audience")
	}
	return many, nil
}

// clip keeps what a stranger wrote short enough for a log line.
func clip(s string) string {
	if len(s) > 32 {
		s = s[:32]
	}
	return s
}
