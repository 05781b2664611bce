package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asProgram makes the test's binary the program itself.
const asProgram = "ZT_GATEWAY_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// V200: what keeps a running gateway on its old configuration keeps another one
// from starting: exit code 1, and file, line, field and the nearest name.
func TestFaultyStart(t *testing.T) {
	t.Parallel()
	const gateway = `apiVersion: kube-zt.io/v1alpha1
kind: GatewayConfiguration
domain: zt.example.com
directory: .
listen: 127.0.0.1:0
metrics: {listen: "127.0.0.1:0"}
oidc: {issuer: "https://127.0.0.1:1", clientID: kubectl-zt}
furtherIssuersFile: issuers.yaml
`
	const issuers = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "https://ci.example.com", audiences: [kubernetes]}
  claimMappings:
    username: {claim: sub, prefix: "ci:"}
`
	const role = `apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: dev}
spec: {groups: [dev]}
`
	replaced := func(text, old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q to replace", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	for name, test := range map[string]struct {
		gateway, issuers, role string
		want                   []string // "" for a start
	}{
		"nothing wrong":                   {gateway, issuers, role, nil},
		"field of the gateway":            {replaced(gateway, "clientID", "clientId"), issuers, role, []string{"gateway.yaml:7: ", "oidc.clientId", `"clientID"`}},
		"two faults":                      {replaced(replaced(gateway, "listen: 127", "lisen: 127"), "https", "http"), issuers, role, []string{"gateway.yaml:5: ", `"listen"`, "gateway.yaml:7: oidc.issuer"}},
		"no YAML":                         {replaced(gateway, "directory: .", "directory: ["), issuers, role, []string{"gateway.yaml:"}},
		"field of an object":              {gateway, issuers, replaced(role, "groups", "group"), []string{filepath.Join("config", "role.yaml") + ":4: ", "spec.group", `"groups"`, "hint: zt-gateway check"}},
		"field of an issuer":              {gateway, replaced(issuers, "claim: sub", "clam: sub"), role, []string{"clam"}},
		"an issuer of the login's client": {gateway, replaced(issuers, "[kubernetes]", "[kubectl-zt]"), role, []string{"login client"}},
		"no file of issuers":              {gateway, "", role, []string{"issuers.yaml"}},
		"no file at all":                  {"", issuers, role, []string{"gateway.yaml", "hint: zt-gateway init"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"gateway.yaml": test.gateway, "issuers.yaml": test.issuers, "config/role.yaml": test.role} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "serve", "--config", filepath.Join(dir, "gateway.yaml"))
			cmd.Env = append(os.Environ(), asProgram+"=1")
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 10 * time.Second
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if test.want == nil {
				// It serves until it is told to end: the others' start would, too.
				go func() {
					for ctx.Err() == nil {
						if log, err := os.ReadFile(filepath.Join(dir, "state", "audit.log")); err == nil && bytes.Contains(log, []byte(`"event":"started"`)) {
							cancel()
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
				if err := cmd.Run(); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%v: %s", err, stderr.String())
				}
				return
			}
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || stdout.Len() > 0 {
				t.Fatalf("%v; stdout %q; stderr %q", err, stdout.String(), stderr.String())
			}
			if !strings.Contains("\n"+stderr.String(), "\nzt-gateway: ") {
				t.Errorf("said %q", stderr.String())
			}
			for _, part := range test.want {
				if !strings.Contains(stderr.String(), part) {
					t.Errorf("want %q in %q", part, stderr.String())
				}
			}
		})
	}
}
