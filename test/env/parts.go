package env

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kube-zt/zt/test/env/node"
)

// NodeName is the name of the stream node.
const NodeName = "stream"

// controllers are those that make a cluster feel like one. The ones that judge
// nodes are left out: nobody here sends heartbeats.
var controllers = []string{
	"serviceaccount-controller", "serviceaccount-token-controller", "root-ca-certificate-publisher-controller",
	"namespace-controller", "garbage-collector-controller", "clusterrole-aggregation-controller",
	"deployment-controller", "replicaset-controller", "statefulset-controller", "daemonset-controller",
	"job-controller", "cronjob-controller", "endpointslice-controller", "resourcequota-controller",
	"validatingadmissionpolicy-status-controller",
}

// nodeArgs tell the API server how to reach the node.
var nodeArgs = []string{
	"--kubelet-certificate-authority=node-ca.crt",
	"--kubelet-client-certificate=node-client.crt", "--kubelet-client-key=node-client.key",
	"--kubelet-preferred-address-types=InternalIP",
}

func (cp *ControlPlane) startControllerManager(ctx context.Context) error {
	kubeconfig, err := cp.UserKubeconfig("system:kube-controller-manager", "system:masters")
	if err != nil {
		return err
	}
	p, err := cp.launch("kube-controller-manager",
		"--kubeconfig="+kubeconfig,
		"--controllers="+strings.Join(controllers, ","),
		"--leader-elect=false",
		"--secure-port=0",
		"--root-ca-file=ca.crt", "--service-account-private-key-file=service-account.key",
		"--kube-api-qps=500", "--kube-api-burst=1000",
	)
	if err != nil {
		return err
	}
	return cp.await(ctx, "the default service account exists", []*process{p, cp.apiserver}, func(ctx context.Context) error {
		_, err := cp.client.CoreV1().ServiceAccounts(corev1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// writeNodeFiles makes the authorities between API server and node, and the files
// by which the API server knows them.
func (cp *ControlPlane) writeNodeFiles() error {
	var err error
	if cp.nodes.server, err = newAuthority("node server"); err != nil {
		return err
	}
	if cp.nodes.client, err = newAuthority("node client"); err != nil {
		return err
	}
	identity, err := cp.nodes.client.client("kube-apiserver")
	if err != nil {
		return err
	}
	if err := identity.write(cp.Dir, "node-client"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(cp.Dir, "node-ca.crt"), cp.nodes.server.PEM, 0o600)
}

func (cp *ControlPlane) startNode(ctx context.Context) error {
	serving, err := cp.nodes.server.server()
	if err != nil {
		return err
	}
	certificate, err := serving.tls()
	if err != nil {
		return err
	}
	identity, err := cp.UserConfig("system:node:"+NodeName, "system:masters")
	if err != nil {
		return err
	}
	transport, err := rest.HTTPClientFor(identity)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfigAndClient(identity, transport)
	if err != nil {
		return err
	}
	cp.say("starting the stream node")
	cp.Node = node.New(node.Config{
		Name:        NodeName,
		Client:      client,
		Certificate: certificate,
		ClientCAs:   cp.nodes.client.pool(),
		Dir:         filepath.Join(cp.Dir, "pods"),
		Start:       cp.group.Start,
	})
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		err := cp.Node.Run(running)
		utilnet.CloseIdleConnectionsFor(transport.Transport)
		ended <- err
	}()
	cp.endNode = func() {
		cancel()
		for range ended {
		}
	}
	select {
	case <-cp.Node.Ready():
		return nil
	case err := <-ended:
		return fmt.Errorf("the stream node ended: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("wait for the stream node: %w", context.Cause(ctx))
	}
}
