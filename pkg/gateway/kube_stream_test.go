package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	execPath = "/api/v1/namespaces/dev/pods/x/exec?command=cat&stdin=true&stdout=true"
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // RFC 6455 section 1.3
)

// upgrade is the head of a request for an upgrade.
func (p *person) upgrade(method, path, protocol string, lines ...string) string {
	head := method + " " + path + " HTTP/1.1\r\nHost: " + p.rig.kube.host + "\r\nAuthorization: Bearer " + p.token() +
		"\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n"
	if protocol == "websocket" {
		head += "Sec-WebSocket-Key: " + wsKey + "\r\nSec-WebSocket-Version: 13\r\n"
	}
	for _, line := range lines {
		head += line + "\r\n"
	}
	return head + "\r\n"
}

// switched is an upstream that answers an upgrade with a head of its own and
// then lives as serve says.
func switched(head string, serve func(net.Conn, *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(conn, head)
		if serve != nil {
			serve(conn, buffered.Reader)
		}
	}
}

func switching(protocol string, lines ...string) string {
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n"
	if protocol == "websocket" {
		head += "Sec-WebSocket-Accept: " + wsAccept + "\r\n"
	}
	return head + strings.Join(append(lines, ""), "\r\n") + "\r\n"
}

func echo(conn net.Conn, early *bufio.Reader) { _, _ = io.Copy(conn, early) }

// opened is a client's side after 101.
type opened struct {
	*tls.Conn
	reader *bufio.Reader
	answer *http.Response
}

func (p *person) open(head string) opened {
	p.rig.t.Helper()
	conn := p.dial("http/1.1")
	p.rig.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err := io.WriteString(conn, head)
	must(p.rig.t, err)
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	must(p.rig.t, err)
	return opened{conn, reader, answer}
}

func (o opened) body() string {
	body, _ := io.ReadAll(o.answer.Body)
	return string(body)
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, test := range []struct{ method, protocol, offered, chosen string }{
		{"GET", "websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io", "Sec-WebSocket-Protocol: v4.channel.k8s.io"},
		{"POST", "SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io", "X-Stream-Protocol-Version: v4.channel.k8s.io"},
		{"GET", "SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io", ""},
	} {
		t.Run(test.method+" "+test.protocol, func(t *testing.T) {
			var lines []string
			if test.chosen != "" {
				lines = []string{test.chosen}
			}
			r.upstream.handle(switched(switching(test.protocol, lines...), echo))
			stream := alice.open(alice.upgrade(test.method, execPath, test.protocol, test.offered))
			if stream.answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%d %s", stream.answer.StatusCode, stream.body())
			}
			name, value, _ := strings.Cut(test.chosen, ": ")
			if name != "" && stream.answer.Header.Get(name) != value {
				t.Errorf("the client was told %v", stream.answer.Header)
			}
			seen := r.upstream.one()
			if diff := cmp.Diff(alice.intended(), identityOf(seen)); diff != "" {
				t.Error(diff)
			}
			if seen.Proto != "HTTP/1.1" || seen.URI != execPath || seen.Header.Get("Upgrade") != test.protocol {
				t.Errorf("upstream got %+v", seen)
			}
			// Bytes are bytes, frames or not: here they have the form of one frame.
			frame := append([]byte{0x82, 126, 0x40, 0}, bytes.Repeat([]byte("x"), 0x4000)...)
			go func() { _, _ = stream.Write(frame) }()
			back := make([]byte, len(frame))
			if _, err := io.ReadFull(stream.reader, back); err != nil || !bytes.Equal(back, frame) {
				t.Errorf("echo: %v", err)
			}
			stream.Close()
		})
	}
	r.eventually("intent and outcome of three streams", func() bool {
		intents, outcomes := 0, 0
		for _, record := range r.records() {
			switch {
			case record.Kind == "intent" && record.Command == "cat" && record.Subresource == "exec":
				intents++
			case record.Kind == "outcome" && record.Code == 101 && record.BytesIn == 0x4004 && record.BytesOut == 0x4004:
				outcomes++
			}
		}
		return intents == 3 && outcomes == 3
	})
}

// TestV097: a token among the WebSocket protocols is a token, and goes nowhere.
// TestLastWordsOfUpstream: what upstream says before it closes reaches the client,
// although the client talks on and what it says finds a closed connection.
func TestLastWordsOfUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	words := append([]byte{0x82, 126, 0x40, 0}, bytes.Repeat([]byte("x"), 0x4000)...)
	r.upstream.handle(switched(switching("websocket"), func(conn net.Conn, early *bufio.Reader) {
		_, _ = io.ReadFull(early, make([]byte, 1<<20))
		for range 2 {
			_, _ = conn.Write(words)
		}
	}))
	for range 20 {
		stream := alice.open(alice.upgrade("GET", execPath, "websocket"))
		go func() {
			for { // until the connection is gone
				if _, err := stream.Write(words); err != nil {
					return
				}
			}
		}()
		if n, _ := io.Copy(io.Discard, stream.reader); n != int64(2*len(words)) {
			t.Fatalf("%d bytes of %d arrived", n, 2*len(words))
		}
		stream.Close()
	}
}

func TestV097(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice, bob := r.person("alice@example.com"), r.person("bob@example.com")
	protocol := func(p *person) string {
		return authn.ProtocolPrefix + base64.RawURLEncoding.EncodeToString([]byte(p.token()))
	}
	r.upstream.handle(switched(switching("websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io"), echo))
	for name, test := range map[string]struct {
		protocols string
		bare      bool // without an Authorization header
		want      int
	}{
		"same identity":   {"v5.channel.k8s.io, " + protocol(alice), false, 101},
		"instead":         {protocol(alice) + ", v5.channel.k8s.io", true, 101},
		"other identity":  {"v5.channel.k8s.io, " + protocol(bob), false, 401},
		"other, instead":  {"v5.channel.k8s.io, " + protocol(bob), true, 403},
		"two of them":     {"v5.channel.k8s.io, " + protocol(alice) + ", " + protocol(alice), false, 401},
		"alone":           {protocol(alice), false, 400},
		"alone, instead":  {protocol(alice), true, 400},
		"garbage instead": {"v5.channel.k8s.io, " + authn.ProtocolPrefix + "!!!", true, 401},
	} {
		t.Run(name, func(t *testing.T) {
			head := alice.upgrade("GET", execPath, "websocket", "Sec-WebSocket-Protocol: "+test.protocols)
			if test.bare {
				before, after, _ := strings.Cut(head, "Authorization:")
				_, after, _ = strings.Cut(after, "\r\n")
				head = before + after
			}
			stream := alice.open(head)
			if stream.answer.StatusCode != test.want {
				t.Fatalf("%d %s, want %d", stream.answer.StatusCode, stream.body(), test.want)
			}
			stream.Close()
			if test.want != 101 {
				r.upstream.none()
				return
			}
			if got := r.upstream.one().Header["Sec-Websocket-Protocol"]; len(got) != 1 || got[0] != "v5.channel.k8s.io" {
				t.Errorf("upstream got %q", got)
			}
		})
	}
	for _, record := range r.records() {
		line, err := json.Marshal(record)
		must(t, err)
		if bytes.Contains(line, []byte("base64url")) || bytes.Contains(line, []byte("eyJ")) {
			t.Errorf("the log holds a token: %s", line)
		}
	}
}

// TestV134: an upstream that refuses to switch is relayed as what it is, and
// what the client sends next reaches nobody.
func TestV134(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, code := range []int{400, 403, 500} {
		for name, framing := range map[string]string{"with its length": "Content-Length: 7\r\n", "open": ""} {
			t.Run(strconv.Itoa(code)+" "+name, func(t *testing.T) {
				later := make(chan string, 1)
				r.upstream.handle(switched(fmt.Sprintf("HTTP/1.1 %d Nope\r\nContent-Type: text/plain\r\n%s\r\nrefused", code, framing), func(conn net.Conn, early *bufio.Reader) {
					if framing == "" {
						if half, ok := conn.(interface{ CloseWrite() error }); ok {
							_ = half.CloseWrite()
						}
					}
					rest, _ := io.ReadAll(early) // keeps the socket open as long as we do
					later <- string(rest)
				}))
				stream := alice.open(alice.upgrade("GET", execPath, "websocket"))
				if stream.answer.StatusCode != code || stream.body() != "refused" {
					t.Errorf("answered %d", stream.answer.StatusCode)
				}
				_, _ = io.WriteString(stream, "GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n")
				select {
				case rest := <-later:
					if rest != "" {
						t.Errorf("upstream got %q", rest)
					}
				case <-time.After(10 * time.Second):
					t.Error("the connection upstream was not closed")
				}
				if _, err := stream.reader.ReadByte(); err == nil {
					t.Error("the client's connection was not closed")
				}
				r.upstream.one()
			})
		}
	}
}

func TestV135(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, path := range []string{execPath, "/api/v1/namespaces/dev/services/app/proxy/ws"} {
		for _, code := range []int{301, 302, 307, 308} {
			r.upstream.handle(switched(fmt.Sprintf("HTTP/1.1 %d Elsewhere\r\nLocation: https://%s/api/v1/secrets\r\nContent-Length: 0\r\n\r\n", code, r.upstream.server.Listener.Addr()), nil))
			stream := alice.open(alice.upgrade("GET", path, "websocket"))
			if stream.answer.StatusCode != http.StatusBadGateway || stream.answer.Header.Get("Location") != "" {
				t.Errorf("%s, %d: answered %d %v", path, code, stream.answer.StatusCode, stream.answer.Header)
			}
			r.upstream.one()
		}
	}
}

func TestV136(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	const spdy = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
	accept := func(key string) string {
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	if accept(wsKey) != wsAccept {
		t.Fatal("the test's own accept value is wrong")
	}
	for name, test := range map[string]struct{ ask, answer string }{
		"another protocol":         {"websocket", spdy + "\r\n"},
		"SPDY asked":               {"SPDY/3.1", switching("websocket")},
		"h2c":                      {"SPDY/3.1", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"},
		"no protocol":              {"SPDY/3.1", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
		"no connection header":     {"SPDY/3.1", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n"},
		"two protocols":            {"SPDY/3.1", spdy + "Upgrade: websocket\r\n\r\n"},
		"accept of another key":    {"websocket", strings.Replace(switching("websocket"), wsAccept, accept("AAAAAAAAAAAAAAAAAAAAAA=="), 1)},
		"no accept":                {"websocket", strings.Replace(switching("websocket"), "Sec-WebSocket-Accept: "+wsAccept+"\r\n", "", 1)},
		"sub-protocol not offered": {"websocket", switching("websocket", "Sec-WebSocket-Protocol: evil")},
		"stream version not asked": {"SPDY/3.1", spdy + "X-Stream-Protocol-Version: v9\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			r.upstream.handle(switched(test.answer, func(_ net.Conn, early *bufio.Reader) {
				rest, _ := io.ReadAll(early)
				got <- string(rest)
			}))
			method := "GET"
			stream := alice.open(alice.upgrade(method, execPath, test.ask))
			if stream.answer.StatusCode != http.StatusBadGateway {
				t.Errorf("answered %d %v", stream.answer.StatusCode, stream.answer.Header)
			}
			if rest := <-got; rest != "" {
				t.Errorf("upstream got %q", rest)
			}
			r.upstream.one()
		})
	}
}

func TestV137(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	head := func(lines string) string {
		return "GET " + execPath + " HTTP/1.1\r\nHost: " + r.kube.host + "\r\nAuthorization: Bearer " + alice.token() + "\r\n" + lines + "\r\n"
	}
	ws := "Sec-WebSocket-Key: " + wsKey + "\r\nSec-WebSocket-Version: 13\r\n"
	for name, lines := range map[string]string{
		"h2c":                  "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
		"TLS/1.0":              "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
		"foo":                  "Connection: Upgrade\r\nUpgrade: foo\r\n",
		"list":                 "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + ws,
		"two headers":          "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + ws,
		"empty":                "Connection: Upgrade\r\nUpgrade: \r\n",
		"no protocol":          "Connection: Upgrade\r\n",
		"no connection":        "Upgrade: websocket\r\n" + ws,
		"other SPDY":           "Connection: Upgrade\r\nUpgrade: SPDY/3.0\r\n",
		"no key":               "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
		"short key":            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n",
		"two keys":             "Connection: Upgrade\r\nUpgrade: websocket\r\n" + ws + "Sec-WebSocket-Key: " + wsKey + "\r\n",
		"old WebSocket":        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: " + wsKey + "\r\n",
		"with a body":          "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n" + ws,
		"with a chunked body":  "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nTransfer-Encoding: chunked\r\n",
		"WebSocket in capital": "Connection: Upgrade\r\nUpgrade: WEBSOCKET/13\r\n" + ws,
	} {
		t.Run(name, func(t *testing.T) {
			response, body, err := alice.raw(head(lines))
			must(t, err)
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("%d %s", response.StatusCode, body)
			}
			r.upstream.none()
		})
	}
}

func TestV138(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	alice := r.person("alice@example.com")
	for _, path := range []string{"/api/v1/namespaces/dev/pods/x", "/api/v1/pods?watch=1", "/api/v1/namespaces/dev/pods/x/log?follow=true", "/apis", "/exec", "/api/v1/namespaces/dev/exec", "/api/v1/namespaces/dev/pods/exec"} {
		for _, protocol := range []string{"websocket", "SPDY/3.1"} {
			response, body, err := alice.raw(alice.upgrade("GET", path, protocol))
			must(t, err)
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("%s %s: %d %s", path, protocol, response.StatusCode, body)
			}
		}
	}
	r.upstream.none()
}

func TestV139(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{manifests: readers})
	alice := r.person("alice@example.com")
	early := "EARLY-BYTES\r\n\r\nGET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n\r\n"
	response, body, err := alice.raw(alice.upgrade("GET", execPath, "websocket") + early)
	must(t, err)
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	r.upstream.none()
	// Allowed, they are the stream's first bytes and arrive after 101.
	r.manifests(everything)
	r.upstream.handle(switched(switching("websocket"), echo))
	stream := alice.open(alice.upgrade("GET", execPath, "websocket") + "EARLY")
	back := make([]byte, 5)
	if _, err := io.ReadFull(stream.reader, back); err != nil || string(back) != "EARLY" {
		t.Errorf("%q, %v", back, err)
	}
}

// TestV141: a cut stream says why, and of numbered bytes none goes upstream
// after the cut.
func TestV141(t *testing.T) {
	t.Parallel()
	const reason = "the laptop was lost"
	for name, test := range map[string]struct {
		protocol, offered string
		last              func(t *testing.T, rest []byte)
		revoke            func(*person) v1alpha1.RevocationSpec
	}{
		"WebSocket by session": {"websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io", lastClose(reason), func(p *person) v1alpha1.RevocationSpec {
			return v1alpha1.RevocationSpec{Session: string(p.session), Reason: reason}
		}},
		"WebSocket by device": {"websocket", "Sec-WebSocket-Protocol: v5.channel.k8s.io", lastClose(reason), func(p *person) v1alpha1.RevocationSpec {
			return v1alpha1.RevocationSpec{Device: string(p.device.ID), Reason: reason}
		}},
		"SPDY by user": {"SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io", lastStatus(reason), func(p *person) v1alpha1.RevocationSpec {
			return v1alpha1.RevocationSpec{User: string(p.user.Name), Reason: reason}
		}},
		"SPDY by role": {"SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io", lastStatus(reason), func(*person) v1alpha1.RevocationSpec {
			return v1alpha1.RevocationSpec{Role: "all", Reason: reason}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{})
			alice := r.person("alice@example.com")
			var mu sync.Mutex
			var received []byte
			closed := make(chan struct{})
			r.upstream.handle(switched(switching(test.protocol, test.offered), func(conn net.Conn, early *bufio.Reader) {
				defer close(closed)
				go func() { // something is always on its way to the client
					for {
						if _, err := conn.Write([]byte{0x82, 5, 1, 0, 0, 0, 0}); err != nil {
							return
						}
						if test.protocol != "websocket" {
							return
						}
						time.Sleep(time.Millisecond)
					}
				}()
				buffer := make([]byte, 4096)
				for {
					n, err := early.Read(buffer)
					mu.Lock()
					received = append(received, buffer[:n]...)
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}))
			if test.protocol != "websocket" {
				// A whole SPDY frame, so that the end of frames is known.
				r.upstream.handle(switched(switching(test.protocol, test.offered)+"\x00\x00\x00\x03\x00\x00\x00\x04data", func(_ net.Conn, early *bufio.Reader) {
					defer close(closed)
					buffer := make([]byte, 4096)
					for {
						n, err := early.Read(buffer)
						mu.Lock()
						received = append(received, buffer[:n]...)
						mu.Unlock()
						if err != nil {
							return
						}
					}
				}))
			}
			stream := alice.open(alice.upgrade("GET", execPath, test.protocol, test.offered))
			if stream.answer.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%d %s", stream.answer.StatusCode, stream.body())
			}
			// Numbered lines, for ever.
			var sent sync.WaitGroup
			var number int
			var lock sync.Mutex
			sent.Go(func() {
				for {
					lock.Lock()
					number++
					line := fmt.Sprintf("%08d\n", number)
					lock.Unlock()
					if _, err := io.WriteString(stream, line); err != nil {
						return
					}
					time.Sleep(200 * time.Microsecond)
				}
			})
			r.eventually("the first lines arrive", func() bool { mu.Lock(); defer mu.Unlock(); return len(received) > 90 })

			began := time.Now()
			r.epoch.Add(1)
			r.registry.Apply([]*v1alpha1.Revocation{{Spec: test.revoke(alice)}}, wire.Epoch{Generation: 1, Sequence: r.epoch.Load()})
			lock.Lock()
			atCut := number
			lock.Unlock()
			rest, err := io.ReadAll(stream.reader)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("cut after %s", took)
			}
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Logf("the client's end: %v", err)
			}
			test.last(t, rest)
			<-closed
			stream.Close()
			sent.Wait()
			mu.Lock()
			defer mu.Unlock()
			lines := strings.Split(strings.TrimSuffix(string(received), "\n"), "\n")
			last := lines[len(lines)-1]
			if n, err := strconv.Atoi(last); err == nil && n > atCut+1 {
				t.Errorf("line %d reached upstream, the cut was at %d", n, atCut)
			}
			if number <= atCut {
				t.Errorf("the client did not write on after the cut: %d", number)
			}
			r.eventually("the outcome says why", func() bool {
				for _, record := range r.records() {
					if record.Kind == "outcome" && record.Code == 101 && record.Reason != "" && strings.Contains(record.Message, reason) {
						return true
					}
				}
				return false
			})
		})
	}
}

// lastClose demands that a WebSocket ended with a close frame 1008.
func lastClose(reason string) func(*testing.T, []byte) {
	return func(t *testing.T, rest []byte) {
		t.Helper()
		for len(rest) >= 2 {
			size := 2 + int(rest[1])
			if len(rest) < size {
				break
			}
			if rest[0] == 0x88 {
				code, text := binary.BigEndian.Uint16(rest[2:4]), string(rest[4:size])
				if code != 1008 || !strings.Contains(text, reason) || len(rest) != size {
					t.Errorf("close %d %q, %d bytes after it", code, text, len(rest)-size)
				}
				return
			}
			rest = rest[size:]
		}
		t.Errorf("no close frame; the end is %x", rest)
	}
}

// lastStatus demands that SPDY ended with a Status on the error stream.
func lastStatus(reason string) func(*testing.T, []byte) {
	return func(t *testing.T, rest []byte) {
		t.Helper()
		for len(rest) >= 8 {
			size := 8 + int(binary.BigEndian.Uint32(rest[4:8])&0xFFFFFF)
			if len(rest) < size {
				break
			}
			if binary.BigEndian.Uint32(rest[:4]) == 1 {
				var status metav1.Status
				must(t, json.Unmarshal(rest[8:size], &status))
				if rest[4] != 1 || status.Status != "Failure" || !strings.Contains(status.Message, reason) || len(rest) != size {
					t.Errorf("flags %x, %+v, %d bytes after it", rest[4], status, len(rest)-size)
				}
				return
			}
			rest = rest[size:]
		}
		t.Errorf("no frame on the error stream; the end is %x", rest)
	}
}
