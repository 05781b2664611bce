package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kube-zt/zt/pkg/client/execcred"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/wire"
	"github.com/kube-zt/zt/test/idp"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"kubectl-zt": main,
		"page":       page,
	})
}

// tidy removes what the tests of the package have built together.
type tidy struct{ m *testing.M }

func (t tidy) Run() int {
	code := t.m.Run()
	os.RemoveAll(buildDir)
	return code
}

// page is the person's browser: it hands the address to the test, which signs the
// person in.
func page() {
	resp, err := http.Get(os.Getenv("PAGES") + "?url=" + url.QueryEscape(os.Args[len(os.Args)-1]))
	if err != nil {
		os.Exit(1)
	}
	resp.Body.Close()
}

// world is what a story plays in: an identity provider, a small gateway, and
// somebody in front of a browser.
type world struct {
	idp *idp.Provider
	gw  *gatewaytest.Gateway
	// pages counts what was opened; nobody looks at the page while away is set.
	mu    sync.Mutex
	pages []string
	away  bool
	users sync.WaitGroup
	srv   *httptest.Server
}

func newWorld(t testing.TB) *world {
	t.Helper()
	p, err := idp.Start(context.Background(), idp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{idp: p, gw: gatewaytest.Start(t, wire.OIDC{
		Issuer: wire.Issuer(p.Issuer()), ClientID: p.ClientID(), CA: string(p.CAPEM()), Scopes: []string{"openid", "email", "groups", "offline_access"},
	})}
	w.gw.With(func(s *gatewaytest.State) {
		c := s.Clusters["prod"]
		c.DisplayName, c.Description, c.Link = "Production", "Customers live here\x1b[31m", "https://runbooks.test/prod"
		c.Labels = map[string]string{"env": "prod"}
		s.Clusters["dev"].Policy = "Permissive until 2026-12-01"
	})
	w.srv = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		address := r.URL.Query().Get("url")
		w.mu.Lock()
		w.pages = append(w.pages, address)
		away := w.away
		w.mu.Unlock()
		if !away {
			w.users.Go(func() { w.signIn(t, address) })
		}
	}))
	t.Cleanup(func() {
		w.srv.Close()
		w.users.Wait()
		p.Close()
	})
	return w
}

func (w *world) signIn(t testing.TB, address string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.idp.Browser().Login(ctx, address, "alice"); err != nil {
		t.Logf("browser: %v", err)
	}
}

func (w *world) opened() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.pages...)
}

// environ is the environment of a person's shell.
func (w *world) environ(dir string) []string {
	return []string{
		"HOME=" + filepath.Join(dir, "home"), "ZT_HOME=" + filepath.Join(dir, "zt"), "BROWSER=page", "PAGES=" + w.srv.URL,
		"GATEWAY=" + w.gw.URL(), "PINNED=" + w.gw.Pinned(),
		"WRONGPIN=" + w.gw.URL() + "#sha256=" + strings.Repeat("0", 64), "SHORTPIN=" + w.gw.URL() + "#sha256=abc",
		"KUBECONFIG=", "HTTPS_PROXY=", "https_proxy=", "TERM=dumb", "TMPDIR=/tmp",
	}
}

// Stories of a person at a shell. In them $PINNED is the gateway's login URL.
func TestStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			w := newWorld(e.T().(testing.TB))
			for _, kv := range w.environ(e.WorkDir) {
				k, v, _ := strings.Cut(kv, "=")
				e.Setenv(k, v)
			}
			e.Values["world"] = w
			info, err := w.execInfo("prod", false)
			e.Setenv("INFO", info)
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"gateway": gatewayCommand, "pages": pagesCommand, "exitcode": exitCommand, "mode": modeCommand,
		},
	})
}

// gatewayCommand turns a switch of the gateway.
func gatewayCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value("world").(*world)
	if args[0] == "remake" { // another CA, another UID
		w.gw.AddCluster(wire.ClusterName(args[1]))
		w.gw.Push(wire.Event{})
		return
	}
	var push bool
	w.gw.With(func(s *gatewaytest.State) {
		switch args[0] {
		case "refuse-device":
			s.RefuseCheck = &wire.Refusal{Reason: wire.ReasonDeviceRefused, Message: "this device is refused", Decision: "d-81"}
		case "accept-device":
			s.RefuseCheck = nil
		case "change-issuer":
			s.OIDC.ClientID = "other"
		case "hide":
			s.Clusters[wire.ClusterName(args[1])].Hidden, push = true, true
		case "remove":
			delete(s.Clusters, wire.ClusterName(args[1]))
			push = true
		case "disable-token":
			s.RefuseToken = &wire.Refusal{Reason: wire.ReasonClusterDisabled, Message: "cluster prod is switched off\x1b]0;x\a", Decision: "d-82"}
		case "down":
			s.Down = true
		default:
			ts.Fatalf("gateway: unknown switch %q", args[0])
		}
	})
	if push {
		w.gw.Push(wire.Event{})
	}
}

func pagesCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := ts.Value("world").(*world)
	if got := fmt.Sprint(len(w.opened())); got != args[0] {
		ts.Fatalf("%s pages were opened, want %s", got, args[0])
	}
}

// exitCommand runs kubectl-zt and demands one exit code.
func exitCommand(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		code = -1
		if e, ok := err.(interface{ ExitCode() int }); ok {
			code = e.ExitCode()
		}
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func modeCommand(ts *testscript.TestScript, _ bool, args []string) {
	fi, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", fi.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// execInfo is what client-go tells the plugin of a context that zt has written.
func (w *world) execInfo(cluster wire.ClusterName, interactive bool) (string, error) {
	ca := gatewaytest.Read(w.gw, func(s *gatewaytest.State) string { return s.Clusters[cluster].Cluster.CA })
	b, err := json.Marshal(map[string]any{
		"apiVersion": execcred.APIVersion, "kind": "ExecCredential",
		"spec": map[string]any{"interactive": interactive, "cluster": map[string]any{
			"server": "https://" + string(cluster) + "." + gatewaytest.Domain, "certificate-authority-data": []byte(ca),
		}},
	})
	return string(b), err
}
