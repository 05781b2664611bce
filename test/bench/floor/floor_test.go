package floor

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Argument {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// floors are all kinds in front of a server that says whom it was told about.
type floors struct {
	keys Keys
	addr map[Kind]string
}

func start(t *testing.T) floors {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %q %s", r.Proto, r.Header.Get("Authorization"), r.Header.Get("Impersonate-User"), r.Header["Impersonate-Group"], r.URL.Path)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Keys: keys, Server: server.URL, ServerToken: "account",
		ServerCA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	f := floors{keys: keys, addr: map[Kind]string{}}
	for _, kind := range []Kind{Proxy, Upstream, ChainGateway, ChainLaptop, DaisyGateway, DaisyLaptop} {
		config.Kind = kind
		switch kind {
		case ChainLaptop:
			config.Next = f.addr[ChainGateway]
		case DaisyLaptop:
			config.Next = f.addr[DaisyGateway]
		case DaisyGateway:
			config.Server, config.ServerCA = "https://"+f.addr[Upstream], keys.CertPEM
		}
		p, err := Start(t.Context(), os.Args[0], config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		f.addr[kind] = p.Addr
	}
	return f
}

func (f floors) client(t *testing.T, via Kind) *http.Client {
	t.Helper()
	tlsConfig, err := f.keys.ClientTLS(false)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	if via != Proxy {
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: f.addr[via]})
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	f := start(t)
	good, err := f.keys.Token("alice", []string{"a", "b"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	old, err := f.keys.Token("alice", nil, -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, via := range []Kind{Proxy, ChainLaptop, DaisyLaptop} {
		for _, test := range []struct{ name, token, want string }{
			{"good", good, `HTTP/2.0 Bearer account alice ["a" "b"] /api`},
			{"good again", good, `HTTP/2.0 Bearer account alice ["a" "b"] /api`},
			{"expired", old, "expired\n"},
			{"forged", good[:len(good)-8] + "AAAAAAAA", "not one of ours\n"},
			{"none", "", "not a token\n"},
		} {
			t.Run(fmt.Sprintf("%s/%s", via, test.name), func(t *testing.T) {
				host := "inner.test" // the CONNECT's target
				if via == Proxy {
					host = f.addr[Proxy]
				}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/api", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", "Bearer "+test.token)
				response, err := f.client(t, via).Do(request)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				got, err := io.ReadAll(response.Body)
				if err != nil || response.ProtoMajor != 2 {
					t.Errorf("%s, %v", response.Proto, err)
				}
				if diff := cmp.Diff(test.want, string(got)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestBulk(t *testing.T) {
	t.Parallel()
	const size = 5<<20 + 17
	f := start(t)
	tlsConfig, err := f.keys.ClientTLS(false, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, direction := range []string{"download", "upload"} {
		t.Run(direction, func(t *testing.T) {
			conn, err := net.Dial("tcp", f.addr[DaisyLaptop])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := connect(conn, BulkHost+":443"); err != nil {
				t.Fatal(err)
			}
			stream := tls.Client(conn, tlsConfig)
			fmt.Fprintf(stream, "POST /api/v1/namespaces/x/pods/bulk/exec?command=%s&command=%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n", direction, size)
			reader := bufio.NewReader(stream)
			response, err := http.ReadResponse(reader, nil)
			if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v, %v", response, err)
			}
			if direction == "download" {
				if err := Receive(reader, size); err != nil {
					t.Error(err)
				}
				return
			}
			if err := Send(stream, size); err != nil {
				t.Fatal(err)
			}
			done := make([]byte, len(BulkDone))
			if _, err := io.ReadFull(reader, done); err != nil || string(done) != BulkDone {
				t.Errorf("%q, %v", done, err)
			}
		})
	}
}

func TestAgent(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	p, err := Start(t.Context(), os.Args[0], Config{Kind: Agent, Socket: socket, Document: []byte("document")})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "credential")
	if got, err := io.ReadAll(conn); err != nil || string(got) != "document" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStartRefused(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), os.Args[0], Config{Kind: "nonsense"}); err == nil || !strings.Contains(err.Error(), `no floor "nonsense"`) {
		t.Errorf("got %v", err)
	}
}
