package gateway

import (
	"bufio"
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
	"os"
	"path/filepath"
	"strings"
	"sync"
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

func newWhole(t *testing.T, drain time.Duration) *whole {
	t.Helper()
	w := &whole{t: t, dir: t.TempDir(), upstream: newUpstreamServer(t, true), key: newKey(t), proof: newKey(t), ended: make(chan error, 1)}
	var err error
	w.idp, err = idp.Start(context.WithoutCancel(t.Context()), idp.Options{Algorithm: jose.ES256})
	must(t, err)
	t.Cleanup(func() { w.idp.Close() })
	file := func(name, content string) string {
		path := filepath.Join(w.dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
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
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w.stop = cancel
	w.Gateway, err = New(ctx, Config{Configuration: config})
	must(t, err)
	go func() { w.ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-w.ended:
		case <-time.After(20 * time.Second):
			t.Error("the gateway does not end")
		}
	})
	w.login()
	return w
}

// call posts JSON and reads JSON.
func (w *whole) call(client *http.Client, url string, in, out any) {
	w.t.Helper()
	body, err := json.Marshal(in)
	must(w.t, err)
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	must(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(w.t, err)
	if response.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %d %s", url, response.StatusCode, text)
	}
	must(w.t, json.Unmarshal(text, out))
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
	gw := w.over(func() (net.Conn, error) {
		return tls.Dial("tcp", w.Address().String(), trust.GatewayClient("gw."+rigDomain, w.authorities.Pin(), nil))
	})
	const base = "https://gw." + rigDomain
	var nonce wire.DeviceNonce
	w.call(gw, base+wire.PathDeviceNonce, struct{}{}, &nonce)
	proof, err := trust.Thumbprint(w.proof.Public())
	must(t, err)
	statement, err := evidence.SignStatement(w.key, wire.DeviceStatement{
		Purpose: wire.PurposeLogin, Audience: rigDomain, Nonce: nonce.Nonce, IssuedAt: nonce.Time.Unix(), Proof: proof, Platform: "linux",
	})
	must(t, err)
	var check wire.DeviceCheck
	w.call(gw, base+wire.PathDeviceCheck, wire.DeviceCheckRequest{Statement: statement}, &check)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, w.key)
	must(t, err)
	var certificate wire.Certificate
	w.call(gw, base+wire.PathSession, wire.SessionRequest{
		TXN: check.TXN, IDToken: w.idp.MintIDToken("alice", idp.Mint{Claims: map[string]any{"nonce": check.Nonce}}),
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})),
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

	client := &tls.Certificate{PrivateKey: w.key}
	for _, cert := range w.chain {
		client.Certificate = append(client.Certificate, cert.Raw)
	}
	outer, err := tls.Dial("tcp", w.Address().String(), trust.TunnelClient("tunnel."+rigDomain, w.authorities.Roots(trust.Gateway),
		func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }))
	must(t, err)
	w.tunnel, err = h2conn.NewClient(outer, h2conn.Options{})
	must(t, err)
	t.Cleanup(func() { w.tunnel.Close() })

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
		return w.stream("prod."+rigDomain+":443", string(w.uid), &tls.Config{
			RootCAs: w.clusterCA, ServerName: "prod." + rigDomain, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		})
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

// V197: asked to end, the gateway is not ready first, what is short ends well,
// what is long is told why and closed at the limit, and nothing is left.
func TestV197(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	w := newWhole(t, limit)
	release, began := make(chan struct{}), make(chan struct{}, 64)
	w.upstream.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			io.WriteString(rw, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}`+"\n")
			http.NewResponseController(rw).Flush()
			<-r.Context().Done()
			return
		}
		began <- struct{}{}
		<-release
		io.WriteString(rw, `{"kind":"PodList","apiVersion":"v1","items":[]}`)
	})
	client := w.kubectl()
	if got := w.ready(); got != http.StatusOK {
		t.Fatalf("ready: %d", got)
	}
	watch, err := w.get(client, "/api/v1/namespaces/default/pods?watch=1")
	must(t, err)
	defer watch.Body.Close()
	lines := bufio.NewReader(watch.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}

	const short = 40
	var failed sync.Map
	var running sync.WaitGroup
	for i := range short {
		running.Go(func() {
			response, err := w.get(client, "/api/v1/namespaces/default/pods")
			if err != nil {
				failed.Store(i, err)
				return
			}
			defer response.Body.Close()
			if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), "PodList") {
				failed.Store(i, fmt.Errorf("%d %s %v", response.StatusCode, body, err))
			}
		})
	}
	for range short {
		<-began
	}

	asked := time.Now()
	w.stop()
	deadline := time.Now().Add(2 * time.Second)
	for w.ready() == http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("still ready")
		}
		time.Sleep(time.Millisecond)
	}
	close(release) // the short ones end while the gateway drains
	running.Wait()
	failed.Range(func(i, err any) bool {
		t.Errorf("short request %v: %v", i, err)
		return true
	})
	if time.Since(asked) > limit {
		t.Error("the short ones had to wait for the limit")
	}
	rest, err := io.ReadAll(lines)
	if took := time.Since(asked); took < limit/2 || took > limit+edgeGrace {
		t.Errorf("the watch ended after %v, want about %v (%v)", took, limit, err)
	}
	if !strings.Contains(string(rest), "shutting down") {
		t.Errorf("the watch was told %q (%v), want why", rest, err)
	}
	select {
	case err := <-w.ended:
		w.ended <- nil
		must(t, err)
	case <-time.After(limit + 2*edgeGrace):
		t.Fatal("the gateway does not end")
	}
	if _, err := net.DialTimeout("tcp", w.Address().String(), time.Second); err == nil {
		t.Error("the listener is open")
	}
}
