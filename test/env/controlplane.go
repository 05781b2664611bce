package env

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kube-zt/zt/test/env/node"
)

// Options says what a control plane consists of. The zero value is etcd and
// kube-apiserver alone.
type Options struct {
	// Dir is an empty or missing directory for all state; Stop leaves it. By
	// default it is a temporary one, which Stop removes.
	Dir string
	// Log gets a line per step. By default only the build of the programs is
	// reported, on stderr, because it may take minutes.
	Log io.Writer

	// ControllerManager fills namespaces with their default service account and
	// root CA, empties deleted ones, collects garbage, aggregates view, edit and
	// admin, and runs deployments and jobs. Without it service accounts are not
	// demanded of pods.
	ControllerManager bool
	// StreamNode is a node in this process whose containers are local processes:
	// exec, attach, logs and port-forward work. Pods without a node go to it.
	StreamNode bool
	// Kwok keeps the simulated node KwokNode and its pods, see CreatePods.
	Kwok bool

	// APIServerArgs are further flags; of a repeated flag the last one counts.
	APIServerArgs []string
}

// ControlPlane is a running control plane. Its methods may be used concurrently,
// except for Stop and those that stop or start the API server.
type ControlPlane struct {
	// Dir holds all state and one log file per program.
	Dir string
	// URL of the API server: https, 127.0.0.1 and a port that stays for life.
	URL string
	// CAPEM is the certificate authority of the API server's certificate.
	CAPEM []byte
	// AdminKubeconfig is the path of a kubeconfig of a member of system:masters.
	AdminKubeconfig string
	// AuditLog is the path of the API server's audit log: one JSON event a line,
	// written before the answer is complete. See Audit.
	AuditLog string
	// Node is the stream node, or nil.
	Node *node.Node

	options   Options
	programs  string
	temporary *scratch // nil when Options.Dir was given
	group     *Group
	port      *reservation
	server    *authority // signs the API server's certificate
	clients   *authority // signs users
	nodes     struct{ server, client *authority }
	etcd      *process // also in others
	apiserver *process
	mu        sync.Mutex
	others    []*process // guarded by mu

	admin   *rest.Config
	http    *http.Client // of client
	client  *kubernetes.Clientset
	endNode func() // ends the stream node and waits for it
	once    sync.Once
	stopErr error
}

// Start builds what is missing, starts a control plane and returns when every
// part asked for is ready. The control plane outlives ctx; Stop ends it. On an
// error nothing is left running.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	cp := &ControlPlane{options: options}
	if err := cp.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start the control plane: %w", err), cp.Stop())
	}
	return cp, nil
}

func (cp *ControlPlane) start(ctx context.Context) error {
	progress := cp.options.Log
	if progress == nil {
		progress = os.Stderr
	}
	var err error
	if cp.programs, err = Build(ctx, progress); err != nil {
		return err
	}
	if err := cp.openDir(); err != nil {
		return err
	}
	if cp.group, err = NewGroup(); err != nil {
		return err
	}
	if cp.port, err = reservePort(); err != nil {
		return err
	}
	if err := cp.writeFiles(); err != nil {
		return err
	}
	if err := cp.startEtcd(); err != nil {
		return err
	}
	if err := cp.StartAPIServer(ctx); err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	if cp.options.ControllerManager {
		parts.Go(func() error { return cp.startControllerManager(ctx) })
	}
	if cp.options.StreamNode {
		parts.Go(func() error { return cp.startNode(ctx) })
	}
	if cp.options.Kwok {
		parts.Go(func() error { return cp.startKwok(ctx) })
	}
	if err := parts.Wait(); err != nil {
		return err
	}
	cp.say("ready")
	return nil
}

// Stop ends every process and removes the temporary directory. Nothing is shut
// down in an orderly way: the state is not needed any more. Stop may be repeated.
func (cp *ControlPlane) Stop() error {
	cp.once.Do(func() {
		if cp.endNode != nil {
			cp.endNode()
		}
		if cp.group != nil {
			cp.stopErr = cp.group.Close()
		}
		for _, p := range append(cp.others, cp.apiserver) {
			if p != nil {
				<-p.done
			}
		}
		if cp.port != nil {
			cp.port.release()
		}
		if cp.http != nil { // idle connections are goroutines
			utilnet.CloseIdleConnectionsFor(cp.http.Transport)
		}
		if cp.temporary != nil {
			cp.stopErr = errors.Join(cp.stopErr, cp.temporary.remove())
		}
	})
	return cp.stopErr
}

// Bin returns the path of a program of the control plane: kubectl, kubectl-1.27,
// kubectl-1.32, etcd, kube-apiserver, …
func (cp *ControlPlane) Bin(name string) string { return filepath.Join(cp.programs, name) }

// AdminConfig returns a client configuration of a member of system:masters,
// without client-side rate limits. The caller owns it.
func (cp *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(cp.admin) }

// Client returns the typed client of AdminConfig, which all callers share.
func (cp *ControlPlane) Client() *kubernetes.Clientset { return cp.client }

func (cp *ControlPlane) say(format string, args ...any) {
	if cp.options.Log != nil {
		fmt.Fprintf(cp.options.Log, "controlplane: "+format+"\n", args...)
	}
}

// launch starts a program and keeps it for Stop.
func (cp *ControlPlane) launch(program string, args ...string) (*process, error) {
	cp.say("starting %s", program)
	p, err := startProcess(cp.group, cp.Dir, cp.Bin(program), args...)
	if err != nil {
		return nil, err
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.others = append(cp.others, p)
	return p, nil
}

// openDir makes cp.Dir.
func (cp *ControlPlane) openDir() error {
	if cp.options.Dir == "" {
		var err error
		if cp.temporary, err = newScratch(); err != nil {
			return err
		}
		cp.Dir = cp.temporary.dir
		return nil
	}
	dir, err := filepath.Abs(cp.options.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		// The keys are new each time; state that was signed with others is of no use.
		return fmt.Errorf("%s is not empty", dir)
	}
	cp.Dir = dir
	return nil
}

// writeFiles makes the keys, certificates and configuration files, and the
// clients that follow from them.
func (cp *ControlPlane) writeFiles() error {
	cp.URL = fmt.Sprintf("https://127.0.0.1:%d", cp.port.Port)
	cp.AuditLog = filepath.Join(cp.Dir, "audit.log")
	var err error
	if cp.server, err = newAuthority("kube-apiserver"); err != nil {
		return err
	}
	if cp.clients, err = newAuthority("kubernetes clients"); err != nil {
		return err
	}
	cp.CAPEM = cp.server.PEM
	if err := cp.writeServerFiles(); err != nil {
		return err
	}
	if cp.options.StreamNode {
		if err := cp.writeNodeFiles(); err != nil {
			return err
		}
	}
	if cp.admin, err = cp.UserConfig("admin", "system:masters"); err != nil {
		return err
	}
	if cp.AdminKubeconfig, err = cp.UserKubeconfig("admin", "system:masters"); err != nil {
		return err
	}
	if cp.http, err = rest.HTTPClientFor(cp.admin); err != nil {
		return err
	}
	cp.client, err = kubernetes.NewForConfigAndClient(cp.admin, cp.http)
	return err
}

// ready asks the API server's readiness endpoint once.
func (cp *ControlPlane) ready(ctx context.Context) error {
	var status int
	err := cp.client.Discovery().RESTClient().Get().AbsPath("/readyz").MaxRetries(0).Do(ctx).StatusCode(&status).Error()
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}
