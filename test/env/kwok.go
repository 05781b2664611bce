package env

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KwokNode is the name of the simulated node.
const KwokNode = "kwok"

// kwokLabel marks the nodes that kwok keeps. It must not take them all: the
// stream node is not simulated.
const kwokLabel = "kube-zt.io/simulated"

func (cp *ControlPlane) startKwok(ctx context.Context) error {
	kubeconfig, err := cp.UserKubeconfig("system:kwok", "system:masters")
	if err != nil {
		return err
	}
	p, err := cp.launch("kwok",
		"--kubeconfig="+kubeconfig,
		"--config="+filepath.Join(cp.programs, "kwok.yaml"),
		"--manage-nodes-with-label-selector="+kwokLabel+"=true",
		"--node-lease-duration-seconds=0", // no lease, nobody judges nodes here
		"--node-ip=127.0.0.1",
	)
	if err != nil {
		return err
	}
	simulated := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   KwokNode,
		Labels: map[string]string{kwokLabel: "true", corev1.LabelHostname: KwokNode, "type": "kwok"},
	}}
	if _, err := cp.client.CoreV1().Nodes().Create(ctx, simulated, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make node %s: %w", KwokNode, err)
	}
	return cp.await(ctx, "the simulated node is ready", []*process{p, cp.apiserver}, func(ctx context.Context) error {
		n, err := cp.client.CoreV1().Nodes().Get(ctx, KwokNode, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errors.New("not ready")
	})
}

// CreatePods makes n pods named pod-00000, pod-00001, … of the usual size on the
// simulated node, in a namespace that is created where it is missing, and returns
// when all of them run.
func (cp *ControlPlane) CreatePods(ctx context.Context, namespace string, n int) error {
	if !cp.options.Kwok {
		return errors.New("create pods: kwok was not asked for")
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := cp.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create pods: %w", err)
	}
	if cp.options.ControllerManager { // pods are refused before their account exists
		err := cp.await(ctx, "the default service account exists", []*process{cp.apiserver}, func(ctx context.Context) error {
			_, err := cp.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			return err
		})
		if err != nil {
			return fmt.Errorf("create pods: %w", err)
		}
	}
	creating, within := errgroup.WithContext(ctx)
	creating.SetLimit(16)
	for i := range n {
		creating.Go(func() error {
			_, err := cp.client.CoreV1().Pods(namespace).Create(within, simulatedPod(i), metav1.CreateOptions{})
			return err
		})
	}
	if err := creating.Wait(); err != nil {
		return fmt.Errorf("create pods: %w", err)
	}
	return cp.await(ctx, "the pods run", []*process{cp.apiserver}, func(ctx context.Context) error {
		pods, err := cp.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
			FieldSelector: "status.phase=Running,spec.nodeName=" + KwokNode, ResourceVersion: "0",
		})
		if err != nil {
			return err
		}
		if len(pods.Items) < n {
			return fmt.Errorf("%d of %d run", len(pods.Items), n)
		}
		return nil
	})
}

func simulatedPod(i int) *corev1.Pod {
	automount := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("pod-%05d", i),
			Labels: map[string]string{"app.kubernetes.io/name": "simulated", "app.kubernetes.io/instance": fmt.Sprintf("simulated-%d", i%20)},
		},
		Spec: corev1.PodSpec{
			NodeName:                     KwokNode,
			AutomountServiceAccountToken: &automount,
			Containers: []corev1.Container{{
				Name:    "main",
				Image:   "registry.example.com/simulated/main:v1.2.3",
				Args:    []string{"--listen=:8080", "--log-level=info"},
				Env:     []corev1.EnvVar{{Name: "REGION", Value: "north"}, {Name: "INSTANCE", Value: fmt.Sprint(i)}},
				Ports:   []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Command: []string{"/main"},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
				},
			}},
		},
	}
}
