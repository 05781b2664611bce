package tunnel

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
)

const (
	// maxHead bounds a request's head, in bytes; kubectl's has 200.
	maxHead = 8 << 10
	// headLimit is how long a client may take for it.
	headLimit = 10 * time.Second
)

// head is the head of a request to the loopback proxy. net/http's server would
// throw the Host line of a CONNECT away, and that line is looked at here.
type head struct {
	method string
	target string // authority of a CONNECT
	header textproto.MIMEHeader
}

// refusal is an answer to kubectl: an HTTP status, and a text for its reason
// phrase.
type refusal struct {
	status int
	fault  *fault.Fault
}

func refuse(status int, hint, format string, args ...any) *refusal {
	return &refusal{status, fault.New(fault.ExitRefused, hint, format, args...)}
}

var errMalformed = errors.New("malformed request")

// readHead reads a head and leaves in r whatever follows it: a client may send
// its TLS hello in the same packet.
func readHead(conn net.Conn) (*head, *bufio.Reader, error) {
	if err := conn.SetReadDeadline(time.Now().Add(headLimit)); err != nil {
		return nil, nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxHead}
	r := bufio.NewReaderSize(limited, 4<<10)
	h, err := parseHead(r)
	if err != nil {
		return nil, nil, err
	}
	limited.N = math.MaxInt64
	return h, r, conn.SetReadDeadline(time.Time{})
}

func parseHead(r *bufio.Reader) (*head, error) {
	tp := textproto.NewReader(r)
	line, err := tp.ReadLine()
	if err != nil {
		return nil, err
	}
	method, rest, ok1 := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || method == "" || target == "" || (proto != "HTTP/1.1" && proto != "HTTP/1.0") {
		return nil, errMalformed
	}
	header, err := tp.ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	return &head{method: method, target: target, header: header}, nil
}

// check refuses what kubectl never sends. The order matters: a page in a browser
// hears 403 whatever it tries (V067).
func (h *head) check() *refusal {
	for name := range h.header {
		if name == "Origin" || name == "Referer" || strings.HasPrefix(name, "Sec-Fetch-") {
			return refuse(http.StatusForbidden, "kubectl zt kubeconfig", "this port is for kubectl, not for browsers")
		}
	}
	if h.method != http.MethodConnect {
		return refuse(http.StatusMethodNotAllowed, "kubectl zt kubeconfig", "this port takes CONNECT only")
	}
	for _, host := range h.header["Host"] {
		if len(h.header["Host"]) > 1 || (host != h.target && host+":443" != h.target) {
			return refuse(http.StatusForbidden, "kubectl zt kubeconfig", "the Host line is not the target")
		}
	}
	if h.header["Content-Length"] != nil || h.header["Transfer-Encoding"] != nil {
		return refuse(http.StatusBadRequest, "kubectl zt kubeconfig", "CONNECT has no body")
	}
	return nil
}

// credentials are PROFILE and SECRET of the proxy-url.
func (h *head) credentials() (profile, secret string, ok bool) {
	values := h.header["Proxy-Authorization"]
	if len(values) != 1 {
		return "", "", false
	}
	scheme, encoded, _ := strings.Cut(values[0], " ")
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	return strings.Cut(string(decoded), ":")
}

// profile is what the client says, and not to be believed.
func (h *head) profile() string {
	name, _, _ := h.credentials()
	return name
}

// sameSecret takes the same time for all wrong secrets of any length.
func sameSecret(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return want != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// host takes CLUSTER.DOMAIN out of the target; 443 is the only port there is, and
// brackets are for addresses, which no cluster is.
func (h *head) host() (string, *refusal) {
	host, ok := strings.CutSuffix(h.target, ":443")
	if !ok || host == "" || strings.ContainsAny(host, ":[]@/ ") {
		return "", refuse(http.StatusForbidden, "kubectl zt kubeconfig", "%s is not a cluster of this profile", h.target)
	}
	return strings.ToLower(host), nil
}

// answer writes the refusal the way stock clients show it: client-go prints the
// reason phrase, curl the body.
func (r *refusal) answer(conn net.Conn) {
	// kubectl throws a text with these two words away and says instead that the
	// cluster has refused the connection, which it was never asked for.
	text := strings.ReplaceAll(r.fault.Line(), "connection refused", "nothing listens there")
	extra := ""
	if r.status == http.StatusProxyAuthRequired {
		extra = "Proxy-Authenticate: Basic realm=\"zt\"\r\n"
	}
	if conn.SetWriteDeadline(time.Now().Add(headLimit)) != nil {
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 %03d %s\r\nContent-Type: text/plain\r\n%sConnection: close\r\nContent-Length: %d\r\n\r\n%s\n",
		r.status, text, extra, len(text)+1, text)
}
