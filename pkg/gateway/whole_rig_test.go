package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/evidence"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// whole is a gateway with all its parts, between an identity provider, a
// recording upstream and one laptop that is logged in.
type whole struct {
	*Gateway
	t        *testing.T
	upstream *upstream
	idp      *idp.Provider
	dir      string
	stop     context.CancelFunc
	ended    chan error

	key, proof *ecdsa.PrivateKey
	chain      []*x509.Certificate
	tunnel     *h2conn.Client
	token      string
	uid        wire.ClusterUID
	clusterCA  *x509.CertPool
}

// newWhole starts one; change, which may be nil, has the last word on how.
func newWhole(t *testing.T, drain time.Duration, change func(*whole, *Config)) *whole {
	t.Helper()
	w, ctx := newUnstarted(t, drain, change)
	go func() { w.ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		w.stop()
		select {
		case <-w.ended:
		case <-time.After(20 * time.Second):
			t.Error("the gateway does not end")
		}
	})
	w.login()
	// Until the gateway has seen its cluster it refuses everybody.
	for deadline := time.Now().Add(15 * time.Second); !w.clusters.reachable("prod"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the cluster is not reached")
		}
	}
	return w
}

// newUnstarted makes one that is to run in the context. Who does not run it closes
// it.
func newUnstarted(t *testing.T, drain time.Duration, change func(*whole, *Config)) (*whole, context.Context) {
	t.Helper()
	w := &whole{t: t, dir: t.TempDir(), upstream: newUpstreamServer(t, true), key: newKey(t), proof: newKey(t), ended: make(chan error, 1)}
	var err error
	w.idp, err = idp.Start(context.WithoutCancel(t.Context()), idp.Options{Algorithm: jose.ES256})
	must(t, err)
	t.Cleanup(func() { w.idp.Close() })
	file := w.file
	cluster := fmt.Sprintf("apiVersion: kube-zt.io/v1alpha1\nkind: TargetCluster\nmetadata: {name: prod}\nspec: {url: %q, certificateAuthorityFile: %q, tokenFile: %q}\n---\n",
		w.upstream.server.URL, file("upstream.crt", string(w.upstream.caPEM())), file("token", "the-gateways-own-token"))
	file("config/objects.yaml", cluster+everything)
	config := &v1alpha1.GatewayConfiguration{
		Domain: rigDomain, Directory: w.dir, Listen: "127.0.0.1:0", Metrics: v1alpha1.Metrics{Listen: "127.0.0.1:0"},
		OIDC:     v1alpha1.OIDC{Issuer: w.idp.Issuer(), ClientID: w.idp.ClientID(), CertificateAuthorityFile: file("idp.crt", string(w.idp.CAPEM()))},
		Login:    v1alpha1.Login{Enrolment: v1alpha1.EnrolmentOpen},
		Shutdown: v1alpha1.Shutdown{DrainTimeout: metav1.Duration{Duration: drain}},
	}
	config.Default()
	made := Config{Configuration: config}
	if change != nil {
		change(w, &made)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w.stop = cancel
	w.Gateway, err = New(ctx, made)
	must(t, err)
	return w, ctx
}

// file writes a file of the gateway's directory and returns its path.
func (w *whole) file(name, content string) string {
	path := filepath.Join(w.dir, name)
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(w.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// post sends JSON and returns what came back.
func (w *whole) post(client *http.Client, url string, in any) (code int, text []byte) {
	w.t.Helper()
	body, err := json.Marshal(in)
	must(w.t, err)
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	must(w.t, err)
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	must(w.t, err)
	return response.StatusCode, text
}

// call posts JSON and reads JSON.
func (w *whole) call(client *http.Client, url string, in, out any) {
	w.t.Helper()
	code, text := w.post(client, url, in)
	if code != http.StatusOK {
		w.t.Fatalf("%s: %d %s", url, code, text)
	}
	must(w.t, json.Unmarshal(text, out))
}

const gatewayURL = "https://gw." + rigDomain

// checkDevice shows a device key to gw. and returns what that says to it.
func (w *whole) checkDevice(gw *http.Client, key *ecdsa.PrivateKey) (code int, text []byte) {
	var nonce wire.DeviceNonce
	w.call(gw, gatewayURL+wire.PathDeviceNonce, struct{}{}, &nonce)
	proof, err := trust.Thumbprint(w.proof.Public())
	must(w.t, err)
	statement, err := evidence.SignStatement(key, wire.DeviceStatement{
		Purpose: wire.PurposeLogin, Audience: rigDomain, Nonce: nonce.Nonce, IssuedAt: nonce.Time.Unix(), Proof: proof, Platform: "linux",
	})
	must(w.t, err)
	return w.post(gw, gatewayURL+wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: statement})
}

// gw speaks to gw.DOMAIN.
func (w *whole) gw() *http.Client {
	return w.over(func() (net.Conn, error) {
		return tls.Dial("tcp", w.Address().String(), trust.GatewayClient("gw."+rigDomain, w.authorities.Pin(), nil))
	})
}

// over is a client whose connections dial makes.
func (w *whole) over(dial func() (net.Conn, error)) *http.Client {
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return dial() },
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// login goes the whole way: device, person, certificate, tunnel, token.
func (w *whole) login() {
	t := w.t
	gw := w.gw()
	code, text := w.checkDevice(gw, w.key)
	if code != http.StatusOK {
		t.Fatalf("device check: %d %s", code, text)
	}
	var check wire.DeviceCheck
	must(t, json.Unmarshal(text, &check))
	var certificate wire.Certificate
	w.call(gw, gatewayURL+wire.PathSession, wire.SessionRequest{
		TXN: check.TXN, IDToken: w.idp.MintIDToken("alice", idp.Mint{Claims: map[string]any{"nonce": check.Nonce}}),
		CSR: w.csr(),
	}, &certificate)
	for rest := []byte(certificate.Chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		w.chain = append(w.chain, cert)
	}

	w.tunnel = w.dialTunnel()

	authority, err := w.authorities.Cluster("prod")
	must(t, err)
	w.uid, w.clusterCA = authority.UID, x509.NewCertPool()
	w.clusterCA.AppendCertsFromPEM(authority.CAPEM)
	control := w.over(func() (net.Conn, error) {
		return w.stream("control:443", rigDomain, trust.ControlClient(w.authorities.Roots(trust.Gateway)))
	})
	var token wire.Token
	w.call(control, "https://control"+wire.PathToken, wire.TokenRequest{Cluster: "prod"}, &token)
	w.token = token.Token
}

// csr is a certificate request for the device key.
func (w *whole) csr() string {
	w.t.Helper()
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, w.key)
	must(w.t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
}

// tls is what kubectl does in a stream to the cluster.
func (w *whole) tls(protocol string) *tls.Config {
	return &tls.Config{RootCAs: w.clusterCA, ServerName: "prod." + rigDomain, MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}}
}

// stream opens a stream in the tunnel and does TLS in it.
func (w *whole) stream(target, audience string, config *tls.Config) (net.Conn, error) {
	stream, err := w.tunnel.Connect(w.t.Context(), target, nil)
	if err != nil {
		return nil, err
	}
	proving := &person{proof: w.proof, chain: w.chain}
	secure := tls.Client(&prefacedConn{Conn: stream, person: proving, audience: audience}, config)
	if err := secure.Handshake(); err != nil {
		stream.Close()
		return nil, err
	}
	return secure, nil
}

func (w *whole) kubectl() *http.Client {
	return w.over(func() (net.Conn, error) {
		return w.stream("prod."+rigDomain+":443", string(w.uid), w.tls("h2"))
	})
}

func (w *whole) get(client *http.Client, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "https://prod."+rigDomain+path, nil)
	must(w.t, err)
	request.Header.Set("Authorization", "Bearer "+w.token)
	return client.Do(request)
}

func (w *whole) ready() int {
	response, err := http.Get("http://" + w.adminListener.Addr().String() + "/readyz")
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// series is the value of one series of metrics, named as they are exposed.
func series(g *Gateway, name string) string {
	recorder := httptest.NewRecorder()
	g.metrics.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(recorder.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
