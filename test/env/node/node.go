// Package node is a Kubernetes node for tests: it registers itself, takes the pods
// that are bound to it, or to no node at all, and runs each container's command as
// a local process in a directory of its pod. What a kube-apiserver asks a kubelet
// for is served with k8s.io/cri-streaming: exec, attach, port-forward and logs.
//
// It is a real counterpart where streams matter: the end of the input reaches the
// process, exit codes come back, a terminal is a pty that follows resizes, either
// direction of a forwarded connection can be closed by itself, logs follow. It is
// not one elsewhere: images are not pulled (a container without a command runs and
// does nothing), nothing is isolated or limited, containers are never restarted,
// init containers and volumes are ignored, a pod's address is 127.0.0.1.
//
// Only a client that shows a certificate of Config.ClientCAs gets an answer. What
// it asks for is run as the user of this process.
package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Config says what a node is. All fields are needed.
type Config struct {
	Name string
	// Client may read and bind pods, write their status and the node, and delete.
	Client kubernetes.Interface
	// Certificate is for 127.0.0.1.
	Certificate tls.Certificate
	// ClientCAs signed the certificate of the API server as a client.
	ClientCAs *x509.CertPool
	// Dir is where pods get their directories.
	Dir string
	// Start starts a process in a way that it ends with this one. It may replace
	// SysProcAttr. Processes with a terminal are not started by it: they get a
	// session of their own, which ends by hang-up when the terminal's owner ends.
	Start func(*exec.Cmd) error
}

// Node is a node. Run may be called once.
type Node struct {
	config Config
	ready  chan struct{}

	mu     sync.Mutex
	pods   map[podKey]*pod
	work   sync.WaitGroup // see do
	ending bool           // no more work
}

// New returns a node that does nothing until Run.
func New(config Config) *Node {
	return &Node{config: config, ready: make(chan struct{}), pods: map[podKey]*pod{}}
}

// Ready is closed when the node is registered, serves, and sees its pods.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run keeps the node until ctx ends. Then it ends all processes and streams,
// leaves the API objects as they are, and returns nil.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return fmt.Errorf("node %s: %w", n.config.Name, err)
	}
	conns := newListener(ctx, plain)
	server := &http.Server{
		Handler:           n.handler(),
		ConnContext:       connContext,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // handshakes of strangers
	}
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(tls.NewListener(conns, &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{n.config.Certificate},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    n.config.ClientCAs,
			NextProtos:   []string{"http/1.1"}, // what is upgraded cannot be HTTP/2
		}))
	}()
	stop := func() {}
	defer func() {
		cancel() // ends the watches, the connections, and so every handler
		_ = server.Close()
		conns.wait()
		stop()
		n.endPods()
		n.endWork()
	}()

	if err := n.register(ctx, plain.Addr().(*net.TCPAddr).Port); err != nil {
		return fmt.Errorf("node %s: register: %w", n.config.Name, err)
	}
	if stop, err = n.watchPods(ctx); err != nil {
		return fmt.Errorf("node %s: watch pods: %w", n.config.Name, err)
	}
	close(n.ready)
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("node %s: serve: %w", n.config.Name, err)
	}
}

// do runs f, unless the node is ending. The node waits for it.
func (n *Node) do(f func()) {
	n.mu.Lock()
	if n.ending {
		n.mu.Unlock()
		return
	}
	n.work.Add(1)
	n.mu.Unlock()
	defer n.work.Done()
	f()
}

func (n *Node) endWork() {
	n.mu.Lock()
	n.ending = true
	n.mu.Unlock()
	n.work.Wait()
}

// register makes the Node object. It declares no features: with the kubelet's
// WebSocket feature the API server would speak v5 of the streaming protocol to
// us, and cri-streaming knows v4 over WebSocket. Without it, it speaks SPDY.
func (n *Node) register(ctx context.Context, port int) error {
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   n.config.Name,
		Labels: map[string]string{corev1.LabelHostname: n.config.Name, corev1.LabelOSStable: "linux"},
	}}
	nodes := n.config.Client.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	now := metav1.Now()
	status := corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
			{Type: corev1.NodeHostName, Address: n.config.Name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Serving",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
		NodeInfo: corev1.NodeSystemInfo{OperatingSystem: "linux", KubeletVersion: "zt-test"},
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = nodes.PatchStatus(ctx, n.config.Name, patch)
	return err
}
