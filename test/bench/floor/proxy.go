package floor

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// remembered is how long a token that was checked is not checked again.
const remembered = 10 * time.Second

func serveProxy(config Config) (string, error) {
	handler, err := newProxy(config)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	tlsConfig, err := config.Keys.ServerTLS(false, "h2", "http/1.1")
	if err != nil {
		return "", err
	}
	go serveHTTP(listener, tlsConfig, handler)
	return listener.Addr().String(), nil
}

// serveHTTP ends TLS and serves for as long as the process lives.
func serveHTTP(listener net.Listener, tlsConfig *tls.Config, handler http.Handler) {
	server := &http.Server{Handler: handler, TLSConfig: tlsConfig, ErrorLog: log.New(discard{}, "", 0)}
	_ = server.ServeTLS(listener, "", "")
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// proxy is the least impersonating proxy.
type proxy struct {
	tokens  tokens
	reverse *httputil.ReverseProxy
}

func newProxy(config Config) (*proxy, error) {
	target, err := url.Parse(config.Server)
	if err != nil {
		return nil, err
	}
	key, err := config.Keys.tokenKey()
	if err != nil {
		return nil, err
	}
	return &proxy{
		tokens: tokens{key: &key.PublicKey},
		reverse: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				who := r.In.Context().Value(identityKey{}).(*identity)
				r.Out.Header.Set("Authorization", "Bearer "+config.ServerToken)
				r.Out.Header.Set("Impersonate-User", who.user)
				r.Out.Header["Impersonate-Group"] = who.groups
			},
			Transport:  newTransports(config.ServerCA),
			BufferPool: &buffers{},
			ErrorLog:   log.New(discard{}, "", 0),
		},
	}, nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	who, err := p.tokens.check(token, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	p.reverse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
}

// tokens checks tokens and remembers those that were good.
type tokens struct {
	key  *ecdsa.PublicKey
	seen sync.Map // SHA-256 of the token to *identity
}

type identityKey struct{}

type identity struct {
	user   string
	groups []string
	until  time.Time
}

func (t *tokens) check(token string, now time.Time) (*identity, error) {
	hash := sha256.Sum256([]byte(token))
	if found, ok := t.seen.Load(hash); ok && now.Before(found.(*identity).until) {
		return found.(*identity), nil
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, errors.New("not a token")
	}
	var c claims
	if err := parsed.Claims(t.key, &c); err != nil {
		return nil, errors.New("not one of ours")
	}
	if now.Unix() >= c.Expiry {
		return nil, errors.New("expired")
	}
	who := &identity{user: c.Subject, groups: c.Groups, until: now.Add(remembered)}
	t.seen.Store(hash, who)
	return who, nil
}

// transports are two connections to the API server, used in turn: more make no
// difference, HTTP/1.1 a large one.
type transports struct {
	next atomic.Uint32
	two  [2]*http.Transport
}

func newTransports(ca []byte) *transports {
	t := &transports{}
	for i := range t.two {
		t.two[i] = &http.Transport{
			TLSClientConfig:    upstreamTLS(ca, "h2"),
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // the body goes through as it comes
		}
	}
	return t
}

func (t *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.two[t.next.Add(1)%2].RoundTrip(r)
}

func upstreamTLS(ca []byte, protocol string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: roots, NextProtos: []string{protocol}}
}

// buffers is a pool of 32 KiB buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// hostPort of the API server's URL.
func hostPort(server string) (string, error) {
	target, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("read the server's URL: %w", err)
	}
	return target.Host, nil
}
