package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// errNoZT says that zt is not part of this run.
var errNoZT = errors.New("without zt")

// bulkCluster is a second cluster of the gateway: the same API server behind the
// upstream that answers one exec by itself.
const bulkCluster = "bulk"

// zt is a running gateway and one laptop that is logged in.
type zt struct {
	stack  *stack.Stack
	laptop *stack.Laptop
	ci     *idp.Provider // the further issuer, for the kube part without a tunnel
}

// startZT starts zt when the first section asks for it.
func (b *bench) startZT(ctx context.Context) (*zt, error) {
	if b.options.floors {
		return nil, errNoZT
	}
	if b.zt != nil {
		return b.zt, nil
	}
	b.say("starting zt")
	b.atEnd(stack.RemovePrograms)
	upstream, err := b.bulkUpstream(ctx)
	if err != nil {
		return nil, err
	}
	people, err := idp.Start(context.WithoutCancel(ctx), idp.Options{})
	if err != nil {
		return nil, err
	}
	b.atEnd(func() { _ = people.Close() })
	z := &zt{}
	z.ci, err = idp.Start(context.WithoutCancel(ctx), idp.Options{ClientID: "bench", Algorithm: jose.ES256, IDTokenLife: tokenLife})
	if err != nil {
		return nil, err
	}
	b.atEnd(func() { _ = z.ci.Close() })
	issuers := filepath.Join(b.dir, "issuers.yaml")
	if err := os.WriteFile(issuers, z.furtherIssuers(), 0o600); err != nil {
		return nil, err
	}
	z.stack, err = stack.Start(ctx, stack.Options{
		ControlPlane: b.cp, IdP: people, NotStarted: true, GatewayEnv: b.profiler.environment("zt-gateway"),
		Configure: func(c *v1alpha1.GatewayConfiguration) { c.FurtherIssuersFile = issuers },
	})
	if err != nil {
		return nil, err
	}
	b.atEnd(z.stack.Close)
	if err := z.configure(ctx, upstream.Addr, b.keys.CertPEM); err != nil {
		return nil, err
	}
	if err := z.stack.StartGateway(ctx); err != nil {
		return nil, err
	}
	if z.laptop, err = z.connect(ctx, z.stack.LoginURL, b.profiler.environment("kubectl-zt")...); err != nil {
		return nil, err
	}
	b.zt = z
	return z, nil
}

// furtherIssuers is the AuthenticationConfiguration.
func (z *zt) furtherIssuers() []byte {
	config := map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
		"jwt": []any{map[string]any{
			"issuer": map[string]any{"url": z.ci.Issuer(), "audiences": []string{z.ci.ClientID()}, "certificateAuthority": string(z.ci.CAPEM())},
			"claimMappings": map[string]any{
				"username": map[string]any{"claim": "sub", "prefix": "ci:"},
				"groups":   map[string]any{"claim": "groups", "prefix": "ci:"},
			},
		}},
	}
	content, err := json.Marshal(config) // is YAML, too
	if err != nil {
		panic(err) // of strings
	}
	return content
}

// configure writes the clusters, and a role that may do everything from every
// device, with and without a tunnel.
func (z *zt) configure(ctx context.Context, upstream string, upstreamCA []byte) error {
	ca := filepath.Join(z.stack.Dir, "upstream-ca.pem")
	if err := os.WriteFile(ca, upstreamCA, 0o600); err != nil {
		return err
	}
	cluster := `
apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata: {name: %s}
spec: {url: %q, certificateAuthorityFile: %s, tokenFile: %s, direct: true}
`
	token := filepath.Join(z.stack.Dir, "zt-impersonate.token")
	for name, text := range map[string]string{
		"cluster-prod.yaml": fmt.Sprintf(cluster, stack.Cluster, z.stack.ControlPlane.URL, filepath.Join(z.stack.Dir, "cluster-ca.pem"), token),
		"bench.yaml":        benchRole,
	} {
		if err := z.stack.WriteManifest(name, text); err != nil {
			return err
		}
	}
	if err := z.stack.GrantImpersonation(ctx, ""); err != nil {
		return err
	}
	// The rights of the one cluster are those of the other: it is the same.
	return z.stack.WriteManifest("bulk.yaml", fmt.Sprintf(cluster, bulkCluster, "https://"+upstream, ca, token))
}

const benchRole = `
apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata: {name: bench}
spec:
  groups: [employees, "ci:employees"]
  device: {tiers: [none, software, hardware, hardware-attested]}
---
apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata: {name: bench}
spec:
  roles: [bench]
  clusters: ["*"]
  rules:
  - {verbs: ["*"], apiGroups: ["*"], resources: ["*", "*/*"]}
  - {verbs: ["*"], nonResourceURLs: ["*"]}
`

// connect makes a laptop that logs in at a URL and has both clusters.
func (z *zt) connect(ctx context.Context, loginURL string, environ ...string) (*stack.Laptop, error) {
	laptop, err := z.stack.Laptop("alice")
	if err != nil {
		return nil, err
	}
	laptop.Env = environ
	for _, args := range [][]string{{"login", loginURL}, {"connect", stack.Cluster}, {"connect", bulkCluster}} {
		if res := laptop.ZT(ctx, args...); res.Code != 0 {
			return nil, fmt.Errorf("kubectl zt %s: %v", strings.Join(args, " "), res)
		}
	}
	return laptop, nil
}

// ztSeat is a laptop, near the gateway the one that all sections share.
func (b *bench) ztSeat(ctx context.Context, away distance) (*seat, error) {
	z, err := b.startZT(ctx)
	if err != nil {
		return nil, err
	}
	laptop := z.laptop
	moved, err := away(ctx, z.stack.Address)
	if err != nil {
		return nil, err
	}
	if moved != z.stack.Address {
		if laptop, err = z.connect(ctx, strings.Replace(z.stack.LoginURL, z.stack.Address, moved, 1)); err != nil {
			return nil, err
		}
	}
	return &seat{
		name: ztTunnel, home: laptop.Home, kubeconfig: laptop.Kubeconfig, path: b.cp.Bin("kubectl"),
		flags: []string{"--context=" + stack.Cluster, "--namespace=" + namespace}, env: laptop.Environ(),
	}, nil
}

// restartGateway starts the gateway anew, so that its memory is that of a fresh
// process, and waits until the laptop is connected again.
func (b *bench) restartGateway(ctx context.Context) error {
	z, err := b.startZT(ctx)
	if err != nil {
		return err
	}
	if err := z.stack.StopGateway(ctx); err != nil {
		return fmt.Errorf("stop the gateway: %w", err)
	}
	if err := z.stack.StartGateway(ctx); err != nil {
		return err
	}
	w, err := b.ztTunnelWay(ctx)
	if err != nil {
		return err
	}
	return b.await(ctx, func() (bool, error) {
		transport := w.transport()
		defer transport.CloseIdleConnections()
		_, err := w.get(ctx, transport, podPath, http.Header{})
		return err == nil, err
	})
}

// agentOf finds the agent of a laptop, which is nobody's child: the process that
// runs kubectl-zt in that home.
func agentOf(laptop *stack.Laptop) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return 0, err
	}
	home := []byte("HOME=" + laptop.Home + "\x00")
	for _, file := range files {
		environ, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environ, home) {
			continue // ended, or somebody else's
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err == nil && bytes.Contains(command, []byte("kubectl-zt\x00agent")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errors.New("the laptop's agent does not run")
}
