package stream

import (
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 1.3 defines the accept value by SHA-1
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
)

// Protocols that a stream may be upgraded to, as they stand in Upgrade.
const (
	WebSocket = "websocket"
	SPDY      = "SPDY/3.1"
)

// Upgrade is what a client asks for.
type Upgrade struct {
	Protocol string // WebSocket or SPDY
	// Offered are the sub-protocols, without one that carries a token.
	Offered []string
	key     string // Sec-WebSocket-Key
}

// ParseUpgrade reads an upgrade out of a request: nil when it asks for none. A
// protocol that is not known here, a list, or half an upgrade is refused, so
// that nobody down the line can read it otherwise.
func ParseUpgrade(r *http.Request) (*Upgrade, *wire.Refusal) {
	values := r.Header["Upgrade"]
	wanted := slices.ContainsFunc(r.Header["Connection"], func(v string) bool { return containsToken(v, "upgrade") })
	if len(values) == 0 && !wanted {
		return nil, nil
	}
	if r.ProtoMajor != 1 || len(values) != 1 || !wanted {
		return nil, refuseUpgrade("the upgrade is not complete")
	}
	switch {
	case strings.EqualFold(values[0], SPDY):
		if r.Method != http.MethodPost && r.Method != http.MethodGet {
			return nil, refuseUpgrade("SPDY begins with GET or POST")
		}
		return &Upgrade{Protocol: SPDY, Offered: r.Header["X-Stream-Protocol-Version"]}, bodyless(r)
	case strings.EqualFold(values[0], WebSocket):
		key, version := r.Header["Sec-Websocket-Key"], r.Header["Sec-Websocket-Version"]
		if r.Method != http.MethodGet || len(key) != 1 || len(version) != 1 || version[0] != "13" {
			return nil, refuseUpgrade("the WebSocket handshake is not RFC 6455's")
		}
		if nonce, err := base64.StdEncoding.DecodeString(key[0]); err != nil || len(nonce) != 16 {
			return nil, refuseUpgrade("the WebSocket key is not 16 bytes")
		}
		return &Upgrade{Protocol: WebSocket, Offered: authn.WithoutToken(r.Header["Sec-Websocket-Protocol"]), key: key[0]}, bodyless(r)
	default:
		return nil, refuseUpgrade("only SPDY/3.1 and websocket are accepted")
	}
}

// bodyless keeps what follows the header from being a body to one side and the
// first bytes of the stream to the other.
func bodyless(r *http.Request) *wire.Refusal {
	if r.ContentLength != 0 || len(r.TransferEncoding) != 0 {
		return refuseUpgrade("an upgrade has no body")
	}
	return nil
}

func refuseUpgrade(message string) *wire.Refusal {
	return wire.Refuse(wire.ReasonUpgrade, "", "the connection cannot be upgraded: %s", message)
}

// containsToken reports whether a comma-separated header value has token,
// whatever its letters and parameters.
func containsToken(value, token string) bool {
	for part := range strings.SplitSeq(value, ",") {
		part, _, _ = strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(part), token) {
			return true
		}
	}
	return false
}

// relayLimit and relayTime bound an answer that is no 101.
const (
	relayLimit = 1 << 20
	relayTime  = 10 * time.Second
)

// Session is an upgraded stream: upstream has switched and the client has not
// been told yet. The owner must call Run or Close.
type Session struct {
	upgrade  *Upgrade
	response *http.Response
	upstream io.ReadWriteCloser
	protocol string // the sub-protocol that was chosen
}

// Dial asks upstream to switch. A Session means that it did, as asked; a nil
// Session without a Failure means that w has got upstream's own answer.
func (p *Proxy) Dial(ctx context.Context, w http.ResponseWriter, r *http.Request, up *Upgrade, proxied bool) (*Session, *Failure) {
	out := (&http.Request{
		Method:     r.Method,
		URL:        p.upstream.target(r.URL),
		Header:     impersonate.UpgradeHeaders(r.Header, up.Protocol, offered(up)),
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
	}).WithContext(ctx)
	response, err := p.upstream.upgrades.RoundTrip(out)
	if err != nil {
		return nil, classify(ctx, err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, p.relay(ctx, w, response, proxied)
	}
	upstream, ok := response.Body.(io.ReadWriteCloser)
	if err == nil && !ok {
		err = errors.New("the transport gave no stream")
	}
	protocol, wrong := up.verify(response.Header)
	if err = errors.Join(err, wrong); err != nil {
		response.Body.Close()
		return nil, failure(KindUpgrade, err, wire.ReasonUpstream, askAdmin,
			"the cluster's API server switched to something else than it was asked for")
	}
	return &Session{upgrade: up, response: response, upstream: upstream, protocol: protocol}, nil
}

func offered(up *Upgrade) []string {
	if up.Protocol == WebSocket {
		return up.Offered
	}
	return nil // SPDY's are in X-Stream-Protocol-Version
}

// verify holds a 101 against what was asked for (RFC 6455 section 4.1).
func (up *Upgrade) verify(h http.Header) (protocol string, err error) {
	if v := h["Upgrade"]; len(v) != 1 || !strings.EqualFold(v[0], up.Protocol) {
		return "", fmt.Errorf("switched to %q", clip(strings.Join(v, ","), 64))
	}
	if !slices.ContainsFunc(h["Connection"], func(v string) bool { return containsToken(v, "upgrade") }) {
		return "", errors.New("switched without Connection: Upgrade")
	}
	chosen := h["X-Stream-Protocol-Version"]
	if up.Protocol == WebSocket {
		sum := sha1.Sum([]byte(up.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
		if v := h["Sec-Websocket-Accept"]; len(v) != 1 || v[0] != base64.StdEncoding.EncodeToString(sum[:]) {
			return "", errors.New("the accept value does not belong to the key")
		}
		chosen = h["Sec-Websocket-Protocol"]
	}
	switch {
	case len(chosen) == 0:
		return "", nil
	case len(chosen) > 1 || !slices.Contains(up.Offered, chosen[0]):
		return "", errors.New("a sub-protocol was chosen that nobody offered")
	}
	return chosen[0], nil
}

// relay gives the client upstream's refusal to switch, as the answer that it
// is, and ends both connections: whatever the client sends next was meant for
// a stream that does not exist.
func (p *Proxy) relay(ctx context.Context, w http.ResponseWriter, response *http.Response, proxied bool) *Failure {
	// An answer that never ends must not hold the client.
	stop := time.AfterFunc(relayTime, func() { response.Body.Close() })
	defer stop.Stop()
	defer response.Body.Close()
	if err := p.upstream.clean(response, proxied); err != nil {
		return classify(ctx, err)
	}
	h := w.Header()
	for name, values := range response.Header {
		switch name {
		case "Connection", "Keep-Alive", "Upgrade", "Trailer", "Transfer-Encoding", "Content-Length", "Proxy-Connection":
		default:
			h[name] = values
		}
	}
	h["Connection"] = []string{"close"}
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(response.Body, relayLimit))
	return nil
}

// answered are the headers of upstream's 101 that the client gets.
var answered = []string{"Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol", "X-Stream-Protocol-Version"}

// writeSwitch tells the client that the stream begins.
func (s *Session) writeSwitch(w io.Writer, auditID wire.DecisionID) error {
	h := http.Header{
		"Connection": {"Upgrade"},
		"Upgrade":    {s.upgrade.Protocol},
		"Audit-Id":   {string(auditID)},
	}
	for _, name := range answered {
		if values, ok := s.response.Header[name]; ok {
			h[name] = values
		}
	}
	answer := http.Response{StatusCode: http.StatusSwitchingProtocols, ProtoMajor: 1, ProtoMinor: 1, Header: h}
	return answer.Write(w)
}

// Close gives the stream up before it began.
func (s *Session) Close() { s.upstream.Close() }
