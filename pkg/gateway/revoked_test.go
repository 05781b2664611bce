package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestV207IdleEndsToo: what nobody speaks on is cut like what is busy: connections
// to the cluster and to control that are kept alive, a tunnel without a stream, and
// the tunnel under them.
func TestV207IdleEndsToo(t *testing.T) {
	t.Parallel()
	w := newWhole(t, time.Second, nil)
	ended := make(chan string, 8)
	expected := map[string]bool{}
	awaited := func(name string, end func()) {
		expected[name] = true
		go func() {
			end()
			ended <- name
		}()
	}
	// stream opens one in the tunnel, whose end is awaited.
	stream := func(name, target, audience string, config *tls.Config) (net.Conn, error) {
		under, err := w.tunnel.Connect(t.Context(), target, nil)
		if err != nil {
			return nil, err
		}
		over := &ending{Conn: under, over: make(chan struct{})}
		secure := tls.Client(&prefacedConn{Conn: over, person: &person{proof: w.proof, chain: w.chain}, audience: audience}, config)
		if err := secure.HandshakeContext(t.Context()); err != nil {
			return nil, err
		}
		awaited(name, func() { <-over.over })
		return secure, nil
	}
	toCluster := func(name string) (net.Conn, error) {
		return stream(name, "prod."+rigDomain+":443", string(w.uid), w.tls("h2"))
	}
	// What a client has kept alive after an answer that came whole.
	kept := w.over(func() (net.Conn, error) { return toCluster("a kept-alive connection to the cluster") })
	response, err := w.get(kept, "/api/v1/namespaces/dev/pods/x")
	must(t, err)
	_, err = io.Copy(io.Discard, response.Body)
	must(t, err)
	response.Body.Close()
	control := w.over(func() (net.Conn, error) {
		return stream("a kept-alive connection to control", "control:443", rigDomain, trust.ControlClient(w.authorities.Roots(trust.Gateway)))
	})
	var token wire.Token
	w.call(control, "https://control"+wire.PathToken, wire.TokenRequest{Cluster: "prod"}, &token)
	silent, err := toCluster("a stream on which nothing was asked")
	must(t, err)
	go func() { _, _ = io.Copy(io.Discard, silent) }()
	bare := w.dialTunnel()
	must(t, bare.Ping(t.Context()))
	awaited("a tunnel without a stream", func() { <-bare.Done() })
	awaited("the tunnel", func() { <-w.tunnel.Done() })
	select {
	case name := <-ended:
		t.Fatalf("%s ended before anything was revoked", name)
	default:
	}

	_, err = w.store.Revoke(t.Context(), v1alpha1.RevocationSpec{User: "alice@example.com"}, "admin")
	must(t, err)
	late := time.After(2500 * time.Millisecond) // 2 s, and what this machine takes to notice
	for len(expected) > 0 {
		select {
		case name := <-ended:
			delete(expected, name)
		case <-late:
			t.Fatalf("still there: %v", expected)
		}
	}
	// The laptop learns of an end a moment before the gateway is done with it.
	for deadline := time.Now().Add(2 * time.Second); len(w.registry.Live()) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still registered: %+v", w.registry.Live())
		}
	}
	if _, err := w.tryTunnel(); err == nil {
		t.Error("a new tunnel opened")
	}
}

// ending tells when nothing more comes.
type ending struct {
	net.Conn
	over chan struct{}
	once sync.Once
}

func (c *ending) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.over) })
	}
	return n, err
}

// dialTunnel opens a further tunnel with the session's certificate.
func (w *whole) dialTunnel() *h2conn.Client {
	w.t.Helper()
	client, err := w.tryTunnel()
	must(w.t, err)
	w.t.Cleanup(func() { client.Close() })
	return client
}

func (w *whole) tryTunnel() (*h2conn.Client, error) {
	certificate := &tls.Certificate{PrivateKey: w.key}
	for _, cert := range w.chain {
		certificate.Certificate = append(certificate.Certificate, cert.Raw)
	}
	outer, err := tls.Dial("tcp", w.Address().String(), trust.TunnelClient("tunnel."+rigDomain, w.authorities.Roots(trust.Gateway),
		func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }))
	if err != nil {
		return nil, err
	}
	client, err := h2conn.NewClient(outer, h2conn.Options{})
	if err != nil {
		outer.Close()
		return nil, err
	}
	// In TLS 1.3 the client learns only now that its certificate was refused.
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}
