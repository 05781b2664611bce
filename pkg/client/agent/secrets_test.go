package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// everything collects what a person with --verbose gets to see.
type everything struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (e *everything) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(&e.b, format, args...)
}

// run is one command at the highest verbosity, its errors printed as they are.
func (r *rig) run(e *everything, req agent.Request, args any) {
	c := r.client()
	c.Progress = func(s string) { e.add("%s\n", s) }
	c.Notice = func(b []byte) { e.add("%s", b) }
	c.Debug = c.Notice
	req.Verbose = true
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Get(ctx, req, args, nil); err != nil {
		e.add("%v %+v\n", err, err)
		var out bytes.Buffer
		fault.Of(err).Print(&out)
		e.add("%s", out.Bytes())
	}
}

func TestV074NoSecretInAnyOutput(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.gw.With(func(s *gatewaytest.State) { s.CertLife = time.Minute })
	r.trust()
	out := &everything{}
	r.run(out, attended(agent.OpLogin), agent.LoginArgs{})
	secrets := r.agent.Secrets()
	access := r.access()
	for _, req := range []agent.Op{agent.OpClusters, agent.OpConnect, agent.OpStatus, agent.OpDevice, agent.OpTunnel} {
		r.run(out, attended(req), agent.ClusterArgs{Cluster: "prod"})
	}
	token, err := r.credential(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := do(r.kubectl(access, "prod"), "prod", token); err != nil {
		t.Fatal(err)
	}
	r.rawConnect(agent.AccessResult{Profile: access.Profile, Port: access.Port, Secret: "guess"}, "prod.zt.test")

	// A renewal, then everything that can go wrong.
	r.offset.Store(int64(90 * time.Second))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 90 * time.Second })
	r.run(out, attended(agent.OpClusters), nil)
	secrets = append(secrets, r.agent.Secrets()...)
	r.gw.With(func(s *gatewaytest.State) {
		s.RefuseToken = wire.Refuse(wire.ReasonPolicyDenied, "", "no")
		s.RefuseConnect = wire.Refuse(wire.ReasonPolicyDenied, "", "no")
	})
	info := strings.Replace(r.execInfo(false), `"server"`, fmt.Sprintf(`"proxy-url":"http://%s:%s@127.0.0.1:1","server"`, access.Profile, access.Secret), 1)
	r.run(out, attended(agent.OpCredential), agent.CredentialArgs{Cluster: "prod", ExecInfo: info})
	r.run(out, attended(agent.OpCredential), agent.CredentialArgs{Cluster: "prod", ExecInfo: info + "{"})
	r.run(out, attended(agent.OpConnect), agent.ClusterArgs{Cluster: "dev"})
	r.idp.SetFaults(idp.Faults{TokenError: "invalid_grant"})
	r.offset.Store(int64(4 * time.Minute))
	r.gw.With(func(s *gatewaytest.State) { s.Ahead = 4 * time.Minute })
	r.run(out, agent.Request{Op: agent.OpClusters, Profile: gatewaytest.Domain}, nil)

	// A panic whose value is made of a secret.
	r.panics.Store(&secrets[2])
	r.run(out, attended(agent.OpTrust), agent.TrustArgs{Gateway: r.gw.URL(), Pin: pinOf(r)})
	r.panics.Store(nil)
	r.idp.SetFaults(idp.Faults{})
	r.run(out, attended(agent.OpLogout), agent.LogoutArgs{})

	text := out.b.String() + r.log.String()
	if !strings.Contains(text, "panic in a request") || !strings.Contains(text, "certificate renewed") || !strings.Contains(text, "CONNECT refused") {
		t.Fatalf("the test does not reach what it is about:\n%s", text)
	}
	gatewaytest.Read(r.gw, func(s *gatewaytest.State) any {
		for _, c := range s.Clusters {
			for token := range c.Tokens {
				secrets = append(secrets, token)
			}
		}
		return nil
	})
	files := map[string]string{"output": text}
	err = filepath.WalkDir(r.home.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var data []byte
			if data, err = os.ReadFile(path); err == nil {
				files[path] = string(data)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, s := range secrets {
		if s == "" {
			continue
		}
		found++
		for name, content := range files {
			if strings.Contains(content, s) {
				t.Errorf("%s contains a secret: %.12s…", name, s)
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d secrets were known", found)
	}
	for _, mark := range []string{"eyJ", "PRIVATE KEY", "code=", "Bearer ", "Basic "} {
		if strings.Contains(text, mark) {
			t.Errorf("the output contains %q", mark)
		}
	}
}
