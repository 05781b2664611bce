package gateway

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestHostileUpstream: whatever an API server that was taken over answers, the
// client gets an answer that is one, and the request ends like any other.
func TestHostileUpstream(t *testing.T) {
	t.Parallel()
	const path = "/api/v1/namespaces/default/pods"
	for name, test := range map[string]struct {
		answer string
		want   int
	}{
		"switches unasked":          {"HTTP/1.1 101 Switching Protocols\r\n\r\nraw bytes", http.StatusBadGateway},
		"switches unasked, by name": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes", http.StatusBadGateway},
		"a status that is none":     {"HTTP/1.1 099 None\r\nContent-Length: 2\r\n\r\nhi", http.StatusBadGateway},
		"a status of zero":          {"HTTP/1.1 000 None\r\nContent-Length: 2\r\n\r\nhi", http.StatusBadGateway},
		"headers without end":       {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 2000) + "Content-Length: 2\r\n\r\nhi", http.StatusBadGateway},
		"interim answers":           {strings.Repeat("HTTP/1.1 103 Early Hints\r\nX-A: "+strings.Repeat("a", 1000)+"\r\n\r\n", 10000) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", http.StatusOK},
		"no HTTP":                   {"SSH-2.0-x\r\n\r\n", http.StatusBadGateway},
		"two lengths":               {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, protocol := range []string{"h2", "http/1.1"} {
				r := newRig(t, rigOptions{http1: true})
				r.upstream.handle(func(w http.ResponseWriter, _ *http.Request) {
					conn, buffered, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					go buffered.Reader.WriteTo(&bytes.Buffer{})
					fmt.Fprint(conn, test.answer)
				})
				alice := r.person("alice")
				got := r.do(alice.http(protocol), alice.request(http.MethodGet, path, nil))
				if got.code != test.want {
					t.Errorf("%s: %d %.80q, want %d", protocol, got.code, got.body, test.want)
				}
			}
		})
	}
}
