package env

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// startLimit is how long a program may take to become ready. Two seconds is
// usual; with all cores taken by compilers it is far more.
const startLimit = 2 * time.Minute

// etcdSocket is relative to the directory that both programs run in: a socket's
// path may not be longer than about a hundred bytes.
const etcdSocket = "unix://etcd.sock"

// startEtcd starts etcd without any TCP port; its addresses for others are forms
// that it wants filled in.
func (cp *ControlPlane) startEtcd() error {
	const client, peer = "http://localhost:2379", "http://localhost:2380"
	var err error
	cp.etcd, err = cp.launch("etcd",
		"--name=zt", "--data-dir=etcd",
		"--listen-client-urls="+etcdSocket, "--advertise-client-urls="+client,
		"--listen-peer-urls=unix://etcd-peer.sock", "--initial-advertise-peer-urls="+peer, "--initial-cluster=zt="+peer,
		"--unsafe-no-fsync", // nothing here outlives a crash
		"--quota-backend-bytes="+strconv.Itoa(8<<30),
		"--log-level=warn",
	)
	return err
}

// writeServerFiles writes what the API server reads: its certificate, the
// authorities of its clients, the key of the service accounts, the audit policy.
func (cp *ControlPlane) writeServerFiles() error {
	serving, err := cp.server.server("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	if err := serving.write(cp.Dir, "apiserver"); err != nil {
		return err
	}
	accounts, err := newAuthority("service accounts") // only its key is used
	if err != nil {
		return err
	}
	key, err := privatePEM(accounts.key)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt":              cp.server.PEM,
		"client-ca.crt":       cp.clients.PEM,
		"service-account.key": key,
		"audit-policy.yaml":   []byte(auditPolicy),
	} {
		if err := os.WriteFile(filepath.Join(cp.Dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (cp *ControlPlane) apiServerArgs() []string {
	args := []string{
		"--etcd-servers=" + etcdSocket,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(cp.port.Port), "--permit-port-sharing", // see reservation
		"--tls-cert-file=apiserver.crt", "--tls-private-key-file=apiserver.key",
		"--client-ca-file=client-ca.crt",
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=service-account.key",
		"--service-account-key-file=service-account.key",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--endpoint-reconciler-type=none", // endpoints may not be loopback addresses
		"--allow-privileged",
		"--audit-policy-file=audit-policy.yaml", "--audit-log-path=" + cp.AuditLog,
		"--audit-log-mode=blocking",  // in the file before the client has its answer
		"--audit-log-maxsize=100000", // MB: never rotated
		"--profiling=false",
	}
	if !cp.options.ControllerManager {
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	if cp.options.StreamNode {
		args = append(args, nodeArgs...)
	}
	return append(args, cp.options.APIServerArgs...)
}

// StartAPIServer starts the API server after StopAPIServer or KillAPIServer, with
// the same port, keys and data, and returns when it is ready.
func (cp *ControlPlane) StartAPIServer(ctx context.Context) error {
	cp.say("starting kube-apiserver at %s", cp.URL)
	p, err := startProcess(cp.group, cp.Dir, cp.Bin("kube-apiserver"), cp.apiServerArgs()...)
	if err != nil {
		return err
	}
	cp.apiserver = p
	return cp.await(ctx, "kube-apiserver is ready", []*process{p, cp.etcd}, cp.ready)
}

// StopAPIServer stops the API server in its orderly way: requests in flight are
// finished, watches are ended, new connections refused. At the end of ctx it is
// killed.
func (cp *ControlPlane) StopAPIServer(ctx context.Context) { cp.apiserver.stop(ctx) }

// KillAPIServer kills the API server; its connections are reset.
func (cp *ControlPlane) KillAPIServer() { cp.apiserver.kill() }

// RestartAPIServer stops the API server, for at most 10 seconds, and starts it.
func (cp *ControlPlane) RestartAPIServer(ctx context.Context) error {
	stopping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cp.StopAPIServer(stopping)
	return cp.StartAPIServer(ctx)
}

// await polls check until it returns nil, one of the programs that it depends on
// ends, or the time is over.
func (cp *ControlPlane) await(ctx context.Context, what string, programs []*process, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		last := check(ctx)
		if last == nil {
			return nil
		}
		for _, p := range programs {
			select {
			case <-p.done:
				return p.ended()
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w; last: %w", what, context.Cause(ctx), last)
		}
	}
}
