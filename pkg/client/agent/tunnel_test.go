package agent_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

// kubectl is an HTTP client made of what a kubeconfig holds.
func (r *rig) kubectl(access agent.AccessResult, cluster string) *http.Client {
	r.t.Helper()
	pool := x509.NewCertPool()
	for _, c := range access.Clusters {
		if string(c.Name) == cluster {
			pool.AppendCertsFromPEM([]byte(c.CA))
		}
	}
	proxy := &url.URL{Scheme: "http", User: url.UserPassword(string(access.Profile), access.Secret), Host: fmt.Sprintf("127.0.0.1:%d", access.Port)}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func do(c *http.Client, cluster, token string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+cluster+"."+gatewaytest.Domain+"/", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// ready is a rig with alice logged in, a kubeconfig and a token.
func ready(t *testing.T, opts idp.Options, change func(s *gatewaytest.State)) (*rig, agent.AccessResult, string) {
	t.Helper()
	r := newRig(t, opts)
	if change != nil {
		r.gw.With(change)
	}
	r.trust()
	r.login()
	access := r.access()
	token, err := r.credential(false)
	if err != nil {
		t.Fatal(err)
	}
	return r, access, token
}

func TestRequestsGoThroughTheTunnel(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, nil)
	for _, client := range []*http.Client{r.kubectl(access, "prod"), r.kubectl(access, "prod")} {
		for range 3 {
			body, err := do(client, "prod", token)
			if err != nil || !strings.HasSuffix(body, " on prod") {
				t.Fatalf("%q %v\n%s", body, err, r.log)
			}
		}
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.Tunnels }); n != 1 {
		t.Errorf("%d connections to the edge, want one warm one", n)
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.Connects["prod.zt.test:443"] }); n != 2 {
		t.Errorf("%d streams for two clients, want 2", n)
	}
	// The cluster's own authority is what kubectl trusts: another one does not do.
	if _, err := do(r.kubectl(access, "dev"), "prod", token); err == nil {
		t.Error("prod answered under dev's authority")
	}
}

// rawConnect sends a CONNECT as kubectl does and returns the status line.
func (r *rig) rawConnect(access agent.AccessResult, host string) (net.Conn, string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", access.Port))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	auth := base64.StdEncoding.EncodeToString([]byte(string(access.Profile) + ":" + access.Secret))
	fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\nProxy-Authorization: Basic %s\r\n\r\n", host, host, auth)
	if err := conn.SetReadDeadline(time.Now().Add(25 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	return conn, strings.TrimSpace(line)
}

func TestOptimisticConnect(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, nil)
	// The edge takes its time; the answer does not wait for it.
	r.gw.With(func(s *gatewaytest.State) { s.HoldConnect = 3 * time.Second })
	began := time.Now()
	if _, line := r.rawConnect(access, "prod.zt.test"); line != "HTTP/1.1 200 zt" || time.Since(began) > 2*time.Second {
		t.Errorf("%q after %s", line, time.Since(began))
	}

	// Where nothing can be promised it waits and says what the edge says.
	r.gw.With(func(s *gatewaytest.State) {
		s.HoldConnect = 0
		s.Clusters["prod"].State = wire.StateUnreachable
		s.RefuseConnect = &wire.Refusal{Reason: wire.ReasonClusterDown, Message: "cluster prod has not been heard of since 14:02", Hint: "kubectl zt clusters"}
	})
	r.gw.Push(wire.Event{})
	eventually(t, "the state arrives", func() bool { _, line := r.rawConnect(access, "prod.zt.test"); return !strings.Contains(line, "200") })
	_, line := r.rawConnect(access, "prod.zt.test")
	if want := "HTTP/1.1 503 zt: cluster prod has not been heard of since 14:02 (kubectl zt clusters)"; line != want {
		t.Errorf("%q, want %q", line, want)
	}
	r.gw.With(func(s *gatewaytest.State) { s.RefuseConnect = nil })
	if body, err := do(r.kubectl(access, "prod"), "prod", token); err != nil || body == "" {
		t.Errorf("a cluster that answers again: %v", err)
	}
}

func TestRefusedOptimisticStreamIsExplainedNext(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, func(s *gatewaytest.State) {
		s.RefuseConnect = &wire.Refusal{Reason: wire.ReasonPolicyDenied, Message: "policy night-shift closes prod until 06:00"}
	})
	if _, err := do(r.kubectl(access, "prod"), "prod", token); err == nil {
		t.Fatal("got through")
	}
	told := func() bool {
		_, err := do(r.kubectl(access, "prod"), "prod", token)
		return err != nil && strings.Contains(err.Error(), "zt: policy night-shift closes prod until 06:00")
	}
	eventually(t, "the next attempt hears why", told)
	connects := func() int {
		return r.count(func(s *gatewaytest.State) int { return s.Connects["prod.zt.test:443"] })
	}
	before := connects()
	for range 2 {
		if !told() || connects() != before {
			t.Error("the edge was asked again for what is remembered")
		}
	}
}

// A renewal reaches everybody who holds a stream, and none breaks.
func TestRenewalKeepsStreams(t *testing.T) {
	t.Parallel()
	more, received := make(chan string), make(chan string, 16)
	r, access, token := ready(t, idp.Options{}, func(s *gatewaytest.State) {
		s.CertLife = time.Minute
		s.Clusters["prod"].Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for {
				select {
				case text := <-more:
					fmt.Fprintln(w, text)
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://prod.zt.test/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		resp, err := r.kubectl(access, "prod").Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			received <- lines.Text()
		}
	})
	more <- "before"
	if got := <-received; got != "before" {
		t.Fatal(got)
	}
	r.offset.Store(int64(40 * time.Second))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 40 * time.Second })
	eventually(t, "the renewal", func() bool {
		return gatewaytest.Read(r.gw, func(s *gatewaytest.State) bool {
			return s.Renewed == 1 && s.PeerRenewals == 1 && s.Prefaces["prod.zt.test:443"] == 1 && s.Prefaces["control:443"] == 1
		})
	})
	more <- "after"
	if got := <-received; got != "after" {
		t.Fatal(got)
	}
	if c := r.idp.Counters(); c.Refreshes != 1 {
		t.Errorf("%d refreshes, want 1", c.Refreshes)
	}
	if n := r.count(func(s *gatewaytest.State) int { return s.RenewedExpired + s.Prefaces["dev.zt.test:443"] }); n != 0 {
		t.Errorf("%d renewals that nobody needed", n)
	}
}

func TestConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, nil)
	if _, err := do(r.kubectl(access, "prod"), "prod", token); err != nil {
		t.Fatal(err)
	}
	r.gw.Drop()
	eventually(t, "the next request gets through", func() bool {
		_, err := do(r.kubectl(access, "prod"), "prod", token)
		return err == nil
	})
	if n := r.opened.Load(); n != 1 {
		t.Errorf("%d logins for a dropped connection", n)
	}
	// Events come again, too.
	r.gw.With(func(s *gatewaytest.State) { s.Clusters["prod"].DisplayName = "Production" })
	eventually(t, "the catalogue is heard again", func() bool {
		r.gw.Push(wire.Event{})
		var list wire.ClusterList
		err := r.get(attended(agent.OpClusters), nil, &list)
		for _, c := range list.Clusters {
			if c.DisplayName == "Production" {
				return err == nil
			}
		}
		return false
	})
}

func TestCrowdedConnectionGetsASecond(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, func(s *gatewaytest.State) {
		s.Clusters["prod"].Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "here")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	var watches, begun sync.WaitGroup
	defer watches.Wait()
	defer cancel()
	const n = 130 // more than one connection takes
	begun.Add(n)
	for range n {
		client := r.kubectl(access, "prod")
		watches.Go(func() {
			defer client.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://prod.zt.test/watch", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := client.Do(req)
			if err != nil {
				t.Errorf("watch: %v", err)
				begun.Done()
				return
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			lines.Scan()
			begun.Done()
			lines.Scan()
		})
	}
	begun.Wait()
	var st agent.StatusResult
	if err := r.get(agent.Request{Op: agent.OpStatus}, nil, &st); err != nil {
		t.Fatal(err)
	}
	if s := st.Sessions[0]; s.Connections != 2 || s.Streams < n {
		t.Errorf("%d streams on %d connections", s.Streams, s.Connections)
	}
}

func TestIssuerDownIsNotALogin(t *testing.T) {
	t.Parallel()
	r, _, _ := ready(t, idp.Options{}, func(s *gatewaytest.State) { s.CertLife = time.Minute })
	r.idp.SetFaults(idp.Faults{Down: true})
	r.offset.Store(int64(90 * time.Second))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 90 * time.Second })
	_, err := r.credential(true)
	wantFault(t, err, fault.ExitUnreachable, "refresh the login")
	r.idp.SetFaults(idp.Faults{})
	if _, err := r.credential(false); err != nil {
		t.Errorf("after healing: %v", err)
	}
	if n := r.opened.Load(); n != 1 {
		t.Errorf("%d logins, want only the first", n)
	}
}

func TestV070SquattedPort(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, nil)
	r.kill()
	squatter, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", access.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	r.start()
	r.login()

	// The plugin runs before kubectl dials: it stops it there.
	info := strings.Replace(r.execInfo(false), `"server"`, fmt.Sprintf(`"proxy-url":"http://%s:%s@127.0.0.1:%d","server"`, access.Profile, access.Secret, access.Port), 1)
	_, err = r.client().Do(t.Context(), attended(agent.OpCredential), agent.CredentialArgs{Cluster: "prod", ExecInfo: info})
	f := wantFault(t, err, fault.ExitUntrusted, fmt.Sprintf("port %d is stale", access.Port))
	if len(f.Hints) == 0 || f.Hints[0] != "kubectl zt kubeconfig" || strings.Contains(f.What, access.Secret) {
		t.Errorf("%+v", f)
	}
	var st agent.StatusResult
	if err := r.get(agent.Request{Op: agent.OpStatus}, nil, &st); err != nil || len(st.Ports) != 1 || !strings.Contains(st.Ports[0].Problem, "is taken") {
		t.Errorf("%+v %v", st.Ports, err)
	}

	// A new kubeconfig gets another port, bound and checked, and another secret.
	again := r.access()
	if again.Port == access.Port || again.Secret == access.Secret {
		t.Errorf("port %d, was %d; same secret: %v", again.Port, access.Port, again.Secret == access.Secret)
	}
	if _, line := r.rawConnect(again, "prod.zt.test"); !strings.Contains(line, "200") {
		t.Error(line)
	}
	// Nobody ever said a word to the squatter.
	if err := squatter.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if conn, err := squatter.Accept(); err == nil {
		conn.Close()
		t.Error("somebody dialled the squatter")
	}
}

// The kubeconfig's port and secret outlive the agent.
func TestPortSurvivesARestart(t *testing.T) {
	t.Parallel()
	r, access, _ := ready(t, idp.Options{}, nil)
	r.kill()
	r.start()
	r.login()
	if again := r.access(); again.Port != access.Port || again.Secret != access.Secret {
		t.Errorf("%d -> %d", access.Port, again.Port)
	}
}

func TestTunnelPorts(t *testing.T) {
	t.Parallel()
	r, _, token := ready(t, idp.Options{}, nil)
	port := freePort(t)
	var res agent.TunnelResult
	if err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Open: true, Port: port}, &res); err != nil || res.Opened != port {
		t.Fatalf("%+v %v", res, err)
	}
	// The seed's own line: https_proxy=http://localhost:PORT kubectl get pods.
	client := r.kubectl(r.access(), "prod")
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("localhost:%d", port)})
	if body, err := do(client, "prod", token); err != nil || body == "" {
		t.Errorf("through the open port: %v", err)
	}
	client.CloseIdleConnections()
	if err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Close: true, Port: port}, nil); err != nil {
		t.Fatal(err)
	}
	assertClosed(t, port)
	err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Close: true, Port: port}, nil)
	wantFault(t, err, fault.ExitFailed, "no such port")

	err = r.get(attended(agent.OpTunnel), agent.TunnelArgs{Listen: "0.0.0.0:0"}, nil)
	wantFault(t, err, fault.ExitUsage, "others on the network")
	err = r.get(attended(agent.OpTunnel), agent.TunnelArgs{Open: true, Listen: "0.0.0.0:0", Remote: true}, nil)
	wantFault(t, err, fault.ExitUsage, "without a secret")

	// F38: the administrator assigns the port, and may fix it.
	fixed := freePort(t)
	r.gw.With(func(s *gatewaytest.State) {
		s.Clusters["prod"].ListenPort, s.Clusters["prod"].ListenPortFixed = fixed, true
	})
	r.gw.Push(wire.Event{})
	eventually(t, "the assignment arrives", func() bool {
		err = r.get(attended(agent.OpTunnel), agent.TunnelArgs{Open: true, Cluster: "prod", Port: port}, nil)
		return err != nil
	})
	wantFault(t, err, fault.ExitRefused, fmt.Sprintf("fixes its port: %d", fixed))
	if err := r.get(attended(agent.OpTunnel), agent.TunnelArgs{Open: true, Cluster: "prod"}, &res); err != nil || res.Opened != fixed {
		t.Errorf("%+v %v", res, err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestHiddenClusterIsReachedByName(t *testing.T) {
	t.Parallel()
	r, _, _ := ready(t, idp.Options{}, func(s *gatewaytest.State) { s.Clusters["dev"].Hidden = true })
	if a := r.access(); len(a.Clusters) != 1 || a.Clusters[0].Name != "prod" {
		t.Errorf("%+v", a.Clusters)
	}
	var a agent.AccessResult
	if err := r.get(attended(agent.OpAccess), agent.AccessArgs{Clusters: []wire.ClusterName{"dev"}}, &a); err != nil || len(a.Clusters) != 1 {
		t.Errorf("%+v %v", a.Clusters, err)
	}
	if err := r.get(attended(agent.OpConnect), agent.ClusterArgs{Cluster: "dev"}, nil); err != nil {
		t.Error(err)
	}
	err := r.get(attended(agent.OpConnect), agent.ClusterArgs{Cluster: "nowhere"}, nil)
	wantFault(t, err, fault.ExitRefused, `no cluster "nowhere"`)
}

// What the proxy answers names the profile that kubectl came with, also where it is
// not the current one: a stale secret, and what the edge said to the attempt before.
func TestProxyHintsMeanTheProfile(t *testing.T) {
	t.Parallel()
	r, access, token := ready(t, idp.Options{}, func(s *gatewaytest.State) {
		s.RefuseConnect = &wire.Refusal{Reason: wire.ReasonClusterDown, Message: "prod is away", Hint: "kubectl zt clusters"}
	})
	if err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: r.gw.URL(), Pin: pinOf(r), Name: "second"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := do(r.kubectl(access, "prod"), "prod", token); err == nil {
		t.Fatal("got through")
	}
	var last error
	eventually(t, "the next attempt hears why", func() bool {
		_, last = do(r.kubectl(access, "prod"), "prod", token)
		return last != nil && strings.Contains(last.Error(), "prod is away")
	})
	if !strings.Contains(last.Error(), "(kubectl zt --profile zt.test clusters)") {
		t.Errorf("remembered: %v", last)
	}
	stale := access
	stale.Secret = "of yesterday"
	if _, status := r.rawConnect(stale, "prod.zt.test"); !strings.Contains(status, " 407 ") || !strings.Contains(status, "(kubectl zt --profile zt.test kubeconfig)") {
		t.Errorf("a stale secret: %q", status)
	}
}
