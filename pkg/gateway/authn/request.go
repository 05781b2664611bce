package authn

import (
	"encoding/base64"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/kube-zt/zt/pkg/wire"
)

// ProtocolPrefix begins the WebSocket sub-protocol in which browsers send a
// bearer token, since they cannot set a header (Kubernetes' convention).
const ProtocolPrefix = "base64url.bearer.authorization.k8s.io."

// Credential is what a request shows of itself. Both may be set; they must then
// be the same person's. Neither is ever logged.
type Credential struct {
	Header   string // from Authorization
	Protocol string // from Sec-WebSocket-Protocol
}

// FromRequest takes the bearer token out of the places where one is accepted:
// the Authorization header and, for a WebSocket, a sub-protocol. A token
// anywhere else (query, cookie, form) is not seen at all.
func FromRequest(h http.Header, webSocket bool) (Credential, *wire.Refusal) {
	var c Credential
	switch values := h["Authorization"]; len(values) {
	case 0:
	case 1:
		token, refusal := bearer(values[0])
		if refusal != nil {
			return c, refusal
		}
		c.Header = token
	default:
		return c, malformed("there are two Authorization headers")
	}
	if webSocket {
		token, refusal := fromProtocols(h["Sec-Websocket-Protocol"])
		if refusal != nil {
			return c, refusal
		}
		c.Protocol = token
	}
	if c.Header == "" && c.Protocol == "" {
		return c, wire.Refuse(wire.ReasonUnauthenticated, "kubectl zt login", "the request carries no bearer token")
	}
	return c, nil
}

func bearer(value string) (string, *wire.Refusal) {
	scheme, token, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", wire.Refuse(wire.ReasonUnauthenticated, "kubectl zt login", "only bearer tokens are accepted")
	}
	token = strings.TrimSpace(token)
	switch {
	case token == "":
		return "", wire.Refuse(wire.ReasonUnauthenticated, "kubectl zt login", "the bearer token is empty")
	case strings.ContainsAny(token, " ,\t"):
		return "", malformed("the Authorization header holds more than one token")
	}
	return token, nil
}

func fromProtocols(values []string) (string, *wire.Refusal) {
	token, others := "", 0
	for _, protocol := range protocols(values) {
		encoded, ok := strings.CutPrefix(protocol, ProtocolPrefix)
		if !ok {
			others++
			continue
		}
		if token != "" {
			return "", wire.Refuse(wire.ReasonTokenInvalid, "", "there are two tokens among the WebSocket protocols")
		}
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
		if err != nil || !utf8.Valid(decoded) || len(decoded) == 0 {
			return "", wire.Refuse(wire.ReasonTokenInvalid, "", "the token among the WebSocket protocols cannot be read")
		}
		token = string(decoded)
	}
	if token != "" && others == 0 {
		return "", malformed("a WebSocket needs a protocol besides the one that carries the token")
	}
	return token, nil
}

// WithoutToken returns the WebSocket protocols of values but the one that
// carries a token.
func WithoutToken(values []string) []string {
	var rest []string
	for _, protocol := range protocols(values) {
		if !strings.HasPrefix(protocol, ProtocolPrefix) {
			rest = append(rest, protocol)
		}
	}
	return rest
}

func protocols(values []string) []string {
	var list []string
	for _, value := range values {
		for protocol := range strings.SplitSeq(value, ",") {
			if protocol = strings.TrimSpace(protocol); protocol != "" {
				list = append(list, protocol)
			}
		}
	}
	return list
}

func malformed(message string) *wire.Refusal {
	return wire.Refuse(wire.ReasonMalformed, "", "%s", message)
}

// Same reports whether a and b are one person with one credential's standing:
// the two tokens of one WebSocket request must not differ in anything that is
// decided on.
func Same(a, b *Identity) bool {
	return a.Kind == b.Kind && a.User.Same(b.User) && a.Name == b.Name && a.Session == b.Session && a.Key == b.Key
}
