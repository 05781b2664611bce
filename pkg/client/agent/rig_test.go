package agent_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
	"github.com/kube-zt/zt/test/transcript"
)

// rig is a person at a laptop: a real identity provider, a small gateway, and an
// agent in this process behind its real socket.
type rig struct {
	t       *testing.T
	gw      *gatewaytest.Gateway
	idp     *idp.Provider
	home    profile.Home
	log     *transcript.Buffer
	offset  atomic.Int64 // of the laptop's clock
	opened  atomic.Int64 // pages shown in a browser
	stop    context.CancelFunc
	done    chan struct{}
	user    string
	ignore  atomic.Bool            // the person does not look at the page
	mayFail atomic.Bool            // the page ends in an error
	panics  atomic.Pointer[string] // what the agent's next wiring panics with
	agent   *agent.Agent
	logins  sync.WaitGroup
	version string
}

func newRig(t *testing.T, opts idp.Options) *rig {
	t.Helper()
	p, err := idp.Start(context.WithoutCancel(t.Context()), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	gw := gatewaytest.Start(t, wire.OIDC{
		Issuer: wire.Issuer(p.Issuer()), ClientID: p.ClientID(), CA: string(p.CAPEM()),
		Scopes: []string{"openid", "email", "groups", "offline_access"},
	})
	run, err := os.MkdirTemp("", "zt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	r := &rig{
		t: t, gw: gw, idp: p, log: &transcript.Buffer{}, user: "alice", version: "v1.0.0",
		home: profile.Home{Dir: filepath.Join(t.TempDir(), "zt"), Run: filepath.Join(run, "run")},
	}
	t.Cleanup(r.logins.Wait)
	r.start()
	return r
}

func (r *rig) now() time.Time { return time.Now().Add(time.Duration(r.offset.Load())) }

// start runs an agent until kill or the test's end.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	a := agent.New(agent.Config{
		Home: r.home, Version: r.version, Log: r.log, Debug: true, Now: r.now,
		Deps: func(*session.Deps) {
			if v := r.panics.Load(); v != nil {
				panic(*v)
			}
		},
	})
	r.agent = a
	ready := make(chan struct{})
	r.done = make(chan struct{})
	done := r.done
	go func() {
		defer close(done)
		if err := a.Run(ctx, nil, func() { close(ready) }); err != nil && !errors.Is(err, context.Canceled) {
			r.t.Errorf("agent: %v", err)
		}
	}()
	r.stop = cancel
	r.t.Cleanup(r.kill)
	select {
	case <-ready:
	case <-done:
		r.t.Fatal("the agent did not start")
	}
}

func (r *rig) kill() {
	r.stop()
	<-r.done
}

// client is one command; its browser signs the person in at once.
func (r *rig) client() *agent.Client {
	return &agent.Client{
		Home: r.home, Version: r.version, NoSpawn: true,
		Open: func(_ context.Context, url string) error {
			r.opened.Add(1)
			if r.ignore.Load() {
				return nil
			}
			r.logins.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				if err := r.idp.Browser().Login(ctx, url, r.user); err != nil && !r.mayFail.Load() {
					r.t.Errorf("browser: %v", err)
				}
			})
			return nil
		},
	}
}

func attended(op agent.Op) agent.Request {
	return agent.Request{Op: op, Profile: gatewaytest.Domain, Attended: true, Display: true, Parent: os.Getpid()}
}

func (r *rig) get(req agent.Request, args, out any) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	return r.client().Get(ctx, req, args, out)
}

// trust makes first contact with the pin.
func (r *rig) trust() {
	r.t.Helper()
	gateway, pin, err := profile.ParseGateway(r.gw.Pinned())
	if err != nil {
		r.t.Fatal(err)
	}
	var res agent.TrustResult
	if err := r.get(agent.Request{Op: agent.OpTrust}, agent.TrustArgs{Gateway: gateway, Pin: pin}, &res); err != nil {
		r.t.Fatal(err)
	}
	if !res.New || !res.Saved {
		r.t.Fatalf("%+v", res)
	}
}

func (r *rig) login() agent.LoginResult {
	r.t.Helper()
	var res agent.LoginResult
	if err := r.get(attended(agent.OpLogin), agent.LoginArgs{}, &res); err != nil {
		r.t.Fatalf("login: %v\n%s", err, r.log)
	}
	return res
}

// access is what a kubeconfig is made of.
func (r *rig) access() agent.AccessResult {
	r.t.Helper()
	var res agent.AccessResult
	if err := r.get(attended(agent.OpAccess), agent.AccessArgs{File: "/dev/null"}, &res); err != nil {
		r.t.Fatal(err)
	}
	return res
}

// execInfo is what client-go would say, for a context that zt has written.
func (r *rig) execInfo(interactive bool) string {
	doc := map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
		"spec": map[string]any{"interactive": interactive, "cluster": map[string]any{
			"server":                     "https://prod." + gatewaytest.Domain,
			"certificate-authority-data": []byte(gatewaytest.Read(r.gw, func(s *gatewaytest.State) string { return s.Clusters["prod"].Cluster.CA })),
		}},
	}
	b, err := json.Marshal(doc)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// credential is one run of the plugin.
func (r *rig) credential(interactive bool) (token string, err error) {
	req := attended(agent.OpCredential)
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	doc, err := r.client().Do(ctx, req, agent.CredentialArgs{Cluster: "prod", ExecInfo: r.execInfo(interactive)})
	if err != nil {
		return "", err
	}
	var cred struct {
		Status struct{ Token string }
	}
	if err := json.Unmarshal(doc, &cred); err != nil || cred.Status.Token == "" {
		r.t.Fatalf("%s: %v", doc, err)
	}
	return cred.Status.Token, nil
}

func (r *rig) count(f func(s *gatewaytest.State) int) int { return gatewaytest.Read(r.gw, f) }

// eventually polls, because the other side of a wire has its own pace.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func wantFault(t *testing.T, err error, exit fault.Exit, says string) *fault.Fault {
	t.Helper()
	var f *fault.Fault
	if !errors.As(err, &f) || f.Exit != exit || !strings.Contains(f.What, says) {
		t.Fatalf("%v (%+v), want exit %d and %q", err, f, exit, says)
	}
	return f
}

func pinOf(r *rig) string {
	_, pin, _ := strings.Cut(r.gw.Pinned(), "#sha256=")
	return pin
}

// assertClosed fails if anybody answers on the loopback port.
func assertClosed(t *testing.T, port int) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		conn.Close()
		t.Errorf("port %d is still served", port)
	}
}

// tighten gives a copied directory the rights that zt demands.
func tighten(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// approve does on another device what a notice of the device flow asks for.
func (r *rig) approve(notice string) {
	fields := strings.Fields(notice)
	var url, code string
	for i, f := range fields {
		if strings.HasPrefix(f, "https://") {
			url = f
		}
		if f == "code:" && i+1 < len(fields) {
			code = fields[i+1]
		}
	}
	if url == "" || code == "" {
		return
	}
	r.logins.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := r.idp.Browser().ApproveDevice(ctx, url, code, r.user); err != nil {
			r.t.Errorf("approve: %v", err)
		}
	})
}

// rawRequest speaks to the socket by hand and returns the Fault that comes.
func rawRequest(t *testing.T, socket, request string) error {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	frame := append([]byte{'q'}, binary.BigEndian.AppendUint32(nil, uint32(len(request)))...)
	if _, err := conn.Write(append(frame, request...)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	if head[0] != 'e' {
		t.Fatalf("frame %c: %s", head[0], body)
	}
	f := new(fault.Fault)
	if err := json.Unmarshal(body, f); err != nil {
		t.Fatal(err)
	}
	return f
}
