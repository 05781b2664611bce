package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/klog/v2"

	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// lines is what was logged, by whoever.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// everythingLogged captures slog and klog at their most talkative. klog is the
// process's, so the test must not be parallel.
func everythingLogged(t *testing.T) (*slog.Logger, *lines) {
	t.Helper()
	logged := new(lines)
	logger := slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.Level(math.MinInt)}))
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	must(t, flags.Set("v", "10"))
	klog.SetSlogLogger(logger)
	t.Cleanup(func() {
		klog.ClearLogger()
		_ = flags.Set("v", "0")
	})
	return logger, logged
}

// tapped remembers what was written to it.
type tapped struct {
	net.Conn
	written bytes.Buffer
}

func (c *tapped) Write(b []byte) (int, error) {
	c.written.Write(b)
	return c.Conn.Write(b)
}

// secrets is every text that must stay between those whom it is for.
type secrets map[string]string

// found are the secrets of which a piece stands in text: the whole, its end (the
// signature of a token), or its middle.
func (s secrets) found(text string) (names []string) {
	for name, secret := range s {
		const piece = 24
		for _, from := range []int{0, len(secret) / 2, max(0, len(secret)-piece)} {
			// Headers of tokens are the same for all, and no secret.
			if from == 0 && strings.HasPrefix(secret, "eyJ") {
				continue
			}
			if strings.Contains(text, secret[from:min(len(secret), from+piece)]) {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// TestV034V097NoSecretIsLogged goes every way that a secret can come, the right and
// the wrong ones, and looks for it in all that was logged, recorded and counted.
func TestV034V097NoSecretIsLogged(t *testing.T) { // alone: klog is the process's
	logger, logged := everythingLogged(t)
	w := newWhole(t, time.Second, func(_ *whole, c *Config) { c.Logger = logger })
	known := secrets{"access token": w.token, "the gateway's own token": "the-gateways-own-token"}
	gw := w.gw()

	// A login, the parts of it one by one, and the same with something wrong.
	var nonce wire.DeviceNonce
	w.call(gw, gatewayURL+wire.PathDeviceNonce, struct{}{}, &nonce)
	known["device nonce"] = nonce.Nonce
	proof, err := trust.Thumbprint(w.proof.Public())
	must(t, err)
	known["statement"], err = evidence.SignStatement(w.key, wire.DeviceStatement{
		Purpose: wire.PurposeLogin, Audience: rigDomain, Nonce: nonce.Nonce, IssuedAt: nonce.Time.Unix(), Proof: proof, Platform: "linux",
	})
	must(t, err)
	var check wire.DeviceCheck
	w.call(gw, gatewayURL+wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: known["statement"]}, &check)
	known["transaction"] = check.TXN
	for name, claims := range map[string]map[string]any{
		"ID token":                     {"nonce": check.Nonce},
		"ID token of another login":    {"nonce": "another"},
		"ID token of another audience": {"nonce": check.Nonce, "aud": "another"},
		"ID token of yesterday":        {"nonce": check.Nonce, "exp": time.Now().Add(-time.Hour).Unix()},
	} {
		known[name] = w.idp.MintIDToken("alice", idp.Mint{Claims: claims})
		for _, body := range []any{
			wire.SessionRequest{TXN: check.TXN, IDToken: known[name], CSR: "not one"},
			wire.SessionRequest{TXN: known[name], IDToken: check.TXN},
			wire.EnrollRequest{TXN: check.TXN, IDToken: known[name]},
			wire.RenewRequest{TXN: check.TXN, IDToken: known[name], Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.chain[0].Raw}))},
			[]string{known[name]},
		} {
			for _, path := range []string{wire.PathSession, wire.PathDeviceEnroll, wire.PathSessionRenew, wire.PathDeviceCheck} {
				w.post(gw, gatewayURL+path, body)
			}
		}
	}

	// A stream, whose proof is looked at.
	plain, err := w.tunnel.Connect(t.Context(), "prod."+rigDomain+":443", nil)
	must(t, err)
	tap := &tapped{Conn: plain}
	for range 2 { // shown twice: a replay
		spoilt, err := w.tunnel.Connect(t.Context(), "prod."+rigDomain+":443", nil)
		must(t, err)
		if tap.written.Len() > 0 {
			_, _ = spoilt.Write(tap.written.Bytes())
			_, _ = io.Copy(io.Discard, spoilt)
		} else {
			proving := &prefacedConn{Conn: tap, person: &person{proof: w.proof, chain: w.chain}, audience: string(w.uid)}
			_, err = proving.Write(helloBytes(t, "prod."+rigDomain))
			must(t, err)
		}
		spoilt.Close()
	}
	preface := tap.written.Bytes()
	known["proof"] = string(preface[6 : 6+int(preface[4])<<8+int(preface[5])])
	plain.Close()

	// The token in its place, and in all the wrong ones.
	w.upstream.handle(func(rw http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Upgrade") != "" {
			switched(switching("websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io"), echo)(rw, q)
		}
	})
	known["token among the protocols"] = base64.RawURLEncoding.EncodeToString([]byte(w.token))
	known["cookie"] = "a-cookie-that-somebody-keeps"
	for _, lines := range []string{
		"Authorization: Bearer " + w.token,
		"Sec-WebSocket-Protocol: v5.channel.k8s.io, " + authn.ProtocolPrefix + known["token among the protocols"],
		"Sec-WebSocket-Protocol: " + authn.ProtocolPrefix + known["token among the protocols"],
		"Sec-WebSocket-Protocol: v5.channel.k8s.io, " + w.token,
		"Cookie: session=" + known["cookie"] + "; access_token=" + w.token,
		"Proxy-Authorization: Bearer " + w.token,
		"X-Token: " + w.token,
		"Authorization: Bearer " + w.token + "\r\nAuthorization: Bearer " + w.token,
		"Authorization: Bearer x" + w.token,
		"Authorization: " + w.token,
		"Bad Header " + w.token + ": x",
	} {
		w.raw(execPath+"&access_token="+w.token, lines)
	}
	response, err := w.get(w.kubectl(), "/api/v1/pods?access_token="+w.token)
	must(t, err)
	response.Body.Close()
	// To whom no token belongs: gw., and a port that waits for TLS.
	for _, path := range []string{"/" + w.token, wire.PathDiscovery + "?access_token=" + w.token} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gatewayURL+path, nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+w.token)
		request.AddCookie(&http.Cookie{Name: "session", Value: known["cookie"]})
		response, err := gw.Do(request)
		must(t, err)
		response.Body.Close()
	}
	bare, err := net.Dial("tcp", w.Address().String())
	must(t, err)
	fmt.Fprintf(bare, "GET /?access_token=%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", w.token, w.token)
	bare.Close()

	metrics := httptest.NewRecorder()
	w.metrics.Handler().ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	w.stop()
	must(t, <-w.ended)
	w.ended <- nil // for the clean-up
	records, err := os.ReadFile(w.c().Audit.File)
	must(t, err)
	for where, text := range map[string]string{"log": logged.String(), "audit log": string(records), "metrics": metrics.Body.String()} {
		if text == "" {
			t.Errorf("there is no %s, so nothing was looked at", where)
		}
		if names := known.found(text); len(names) > 0 {
			t.Errorf("the %s holds %q", where, names)
		}
	}
}

// helloBytes is a ClientHello.
func helloBytes(t *testing.T, name string) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		_ = tls.Client(far, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context())
		far.Close()
	}()
	hello, err := evidence.ReadHello(near)
	must(t, err)
	return hello.Raw
}

// raw sends one upgrade with these lines in a stream of its own.
func (w *whole) raw(path, lines string) {
	w.t.Helper()
	conn, err := w.stream("prod."+rigDomain+":443", string(w.uid), w.tls("http/1.1"))
	must(w.t, err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: prod.%s\r\nUser-Agent: kubectl\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n\r\n", path, rigDomain, wsKey, lines)
	if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		response.Body.Close()
	}
}

// TestV022 of the whole gateway: an issuer that is down takes the gateway out of
// no load balancer and ends no session; it is counted, and those who need it are
// told.
func TestV022IssuerDown(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	w := newWhole(t, time.Second, func(_ *whole, c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	failures := fmt.Sprintf("zt_key_fetches_total{issuer=%q,result=\"error\"}", w.idp.Issuer())
	if n := series(w.Gateway, failures); n != "" {
		t.Fatalf("%s failures from the start", n)
	}
	_, err := w.idp.RotateKey()
	must(t, err)
	w.idp.SetFaults(idp.Faults{Down: true})
	ahead.Store(int64(30 * time.Second)) // past the pause between fetches
	gw := w.gw()
	code, text := w.checkDevice(gw, w.key)
	if code != http.StatusOK {
		t.Fatalf("device check: %d %s", code, text)
	}
	var check wire.DeviceCheck
	must(t, json.Unmarshal(text, &check))
	code, text = w.post(gw, gatewayURL+wire.PathSession, wire.SessionRequest{
		TXN: check.TXN, IDToken: w.idp.MintIDToken("alice", idp.Mint{Claims: map[string]any{"nonce": check.Nonce}}), CSR: w.csr(),
	})
	var refusal wire.Refusal
	must(t, json.Unmarshal(text, &refusal))
	if code != http.StatusUnauthorized || refusal.Reason != wire.ReasonIdPUnreachable {
		t.Errorf("a login: %d %s", code, text)
	}
	if n := series(w.Gateway, failures); n == "" || n == "0" {
		t.Error("no failed fetch is counted")
	}
	if code := w.ready(); code != http.StatusOK {
		t.Errorf("/readyz: %d", code)
	}
	response, err := w.get(w.kubectl(), "/api/v1/pods")
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("who was logged in: %d", response.StatusCode)
	}
}
