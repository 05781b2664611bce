package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	clientauth "k8s.io/client-go/pkg/apis/clientauthentication/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// kubeconfigContext is what a kubeconfig says for one context.
type kubeconfigContext struct {
	cluster *clientcmdapi.Cluster
	exec    *clientcmdapi.ExecConfig
}

func readContext(path, name string) (kubeconfigContext, error) {
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return kubeconfigContext{}, err
	}
	c := config.Contexts[name]
	if c == nil || config.Clusters[c.Cluster] == nil || config.AuthInfos[c.AuthInfo] == nil || config.AuthInfos[c.AuthInfo].Exec == nil {
		return kubeconfigContext{}, fmt.Errorf("%s has no whole context %q", path, name)
	}
	return kubeconfigContext{config.Clusters[c.Cluster], config.AuthInfos[c.AuthInfo].Exec}, nil
}

// plugin is the exec plugin of a context as kubectl starts it.
func (z *zt) plugin(laptop *stack.Laptop, c kubeconfigContext) (args, environ []string, err error) {
	info := map[string]any{
		"apiVersion": c.exec.APIVersion, "kind": "ExecCredential",
		"spec": map[string]any{"interactive": false, "cluster": map[string]any{
			"server": c.cluster.Server, "certificate-authority-data": c.cluster.CertificateAuthorityData, "proxy-url": c.cluster.ProxyURL,
		}},
	}
	content, err := json.Marshal(info)
	if err != nil {
		return nil, nil, err
	}
	environ = append(laptop.Environ(), "KUBERNETES_EXEC_INFO="+string(content))
	for _, e := range c.exec.Env {
		environ = append(environ, e.Name+"="+e.Value)
	}
	return append([]string{c.exec.Command}, c.exec.Args...), environ, nil
}

// credential is the exec plugin to be timed, or nil without zt.
func (b *bench) credential(ctx context.Context) (*timed, error) {
	if b.options.floors {
		return nil, nil
	}
	if _, err := b.controlPlane(ctx); err != nil {
		return nil, err
	}
	z, err := b.startZT(ctx)
	if err != nil {
		return nil, err
	}
	c, err := readContext(z.laptop.Kubeconfig, stack.Cluster)
	if err != nil {
		return nil, err
	}
	args, environ, err := z.plugin(z.laptop, c)
	return &timed{name: ztCredential, Args: args, Env: environ}, err
}

// tokens asks the plugin when the last token is about to end, as client-go does.
type tokens struct {
	ask func(context.Context) (*clientauth.ExecCredentialStatus, error)

	mu   sync.Mutex
	last *clientauth.ExecCredentialStatus
}

func (t *tokens) token(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil || t.last.ExpirationTimestamp == nil || time.Until(t.last.ExpirationTimestamp.Time) < time.Second {
		status, err := t.ask(ctx)
		if err != nil {
			return "", err
		}
		t.last = status
	}
	return t.last.Token, nil
}

func (b *bench) ztTunnelWay(ctx context.Context) (*way, error) { return b.ztWay(ctx, stack.Cluster) }
func (b *bench) ztBulkWay(ctx context.Context) (*way, error)   { return b.ztWay(ctx, bulkCluster) }

// ztWay goes through agent and tunnel to a cluster.
func (b *bench) ztWay(ctx context.Context, cluster string) (*way, error) {
	z, err := b.startZT(ctx)
	if err != nil {
		return nil, err
	}
	c, err := readContext(z.laptop.Kubeconfig, cluster)
	if err != nil {
		return nil, err
	}
	proxy, err := url.Parse(c.cluster.ProxyURL)
	if err != nil {
		return nil, err
	}
	agent, err := agentOf(z.laptop)
	if err != nil {
		return nil, err
	}
	issued := &tokens{ask: func(ctx context.Context) (*clientauth.ExecCredentialStatus, error) {
		return z.askPlugin(ctx, z.laptop, c)
	}}
	return &way{
		name: ztTunnel, base: c.cluster.Server, tls: trusting(c.cluster.CertificateAuthorityData), proxy: proxy,
		token: issued.token, gateway: z.stack.Gateway.PID(), laptop: agent,
	}, nil
}

func (z *zt) askPlugin(ctx context.Context, laptop *stack.Laptop, c kubeconfigContext) (*clientauth.ExecCredentialStatus, error) {
	args, environ, err := z.plugin(laptop, c)
	if err != nil {
		return nil, err
	}
	cmd := laptop.Command(ctx, args[0], args[1:]...)
	cmd.Env = environ
	var diag bytes.Buffer
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, diag.Bytes())
	}
	var credential clientauth.ExecCredential
	if err := json.Unmarshal(out, &credential); err != nil || credential.Status == nil {
		return nil, fmt.Errorf("%s printed no credential: %w", strings.Join(args, " "), err)
	}
	return credential.Status, nil
}

// ztDirectWay goes to the kube part without a tunnel, with a token of the further
// issuer.
func (b *bench) ztDirectWay(ctx context.Context) (*way, error) {
	z, err := b.startZT(ctx)
	if err != nil {
		return nil, err
	}
	c, err := readContext(z.laptop.Kubeconfig, stack.Cluster)
	if err != nil {
		return nil, err
	}
	token := z.ci.MintIDToken("alice", idp.Mint{})
	return &way{
		name: ztDirect, base: "https://" + stack.Cluster + ".direct." + stack.Domain, dial: z.stack.Address,
		tls:     trusting(c.cluster.CertificateAuthorityData),
		token:   func(context.Context) (string, error) { return token, nil },
		gateway: z.stack.Gateway.PID(),
	}, nil
}
