package node

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

type podKey struct{ namespace, name string }

// pod is a pod on this node.
type pod struct {
	node *Node
	key  podKey
	uid  types.UID
	dir  string // of all its containers
	ctx  context.Context
	gone context.CancelFunc // ends ctx, and with it what was started by exec

	waits   sync.WaitGroup // for the containers' processes
	writing sync.Mutex     // one status at a time

	mu         sync.Mutex
	specs      []corev1.Container
	containers []*container // same order
	ephemeral  int          // how many of them, at the end, are ephemeral
	ending     bool
}

// newPod makes the directory of a pod; no container has been started.
func (n *Node) newPod(ctx context.Context, object *corev1.Pod) (*pod, error) {
	p := &pod{
		node: n,
		key:  podKey{object.Namespace, object.Name},
		uid:  object.UID,
		dir:  filepath.Join(n.config.Dir, object.Namespace, object.Name, string(object.UID)),
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	p.ctx, p.gone = context.WithCancel(ctx)
	return p, nil
}

// startMissing starts the containers that have not been started: all of them at
// first, later the ephemeral ones that were added. It reports whether there were
// any. After each container's end report is called.
func (p *pod) startMissing(object *corev1.Pod, report func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return false
	}
	wanted := append([]corev1.Container{}, object.Spec.Containers...)
	for _, e := range object.Spec.EphemeralContainers {
		wanted = append(wanted, corev1.Container(e.EphemeralContainerCommon))
	}
	missing := wanted[len(p.containers):]
	for i := range missing {
		p.specs = append(p.specs, missing[i])
		p.containers = append(p.containers, p.startContainer(&missing[i], report))
	}
	p.ephemeral = len(object.Spec.EphemeralContainers)
	return len(missing) > 0
}

// end ends all containers within grace, and everything that was started in them,
// and returns when they have ended.
func (p *pod) end(grace time.Duration) {
	p.mu.Lock()
	p.ending = true
	containers := p.containers
	p.mu.Unlock()
	var ends sync.WaitGroup
	for _, c := range containers {
		ends.Go(func() { c.end(grace) })
	}
	ends.Wait()
	p.gone()
	p.waits.Wait()
}

// container returns the container of a name, or nil. No name stands for the first.
func (p *pod) container(name string) *container {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if c.name == name || name == "" {
			return c
		}
	}
	return nil
}

func (p *pod) spec(name string) *corev1.Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.specs {
		if p.specs[i].Name == name {
			return &p.specs[i]
		}
	}
	return &corev1.Container{}
}

// environment is what a container's processes get: nothing of this process's own
// but PATH.
func (p *pod) environment(spec *corev1.Container) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "HOSTNAME=" + p.key.name}
	if spec.TTY {
		env = append(env, "TERM=xterm")
	}
	for _, v := range spec.Env {
		if v.ValueFrom == nil {
			env = append(env, v.Name+"="+v.Value)
		}
	}
	return env
}

// status is what the API server is told of the pod.
func (p *pod) status() corev1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := corev1.PodStatus{
		Phase:  corev1.PodRunning,
		HostIP: "127.0.0.1", HostIPs: []corev1.HostIP{{IP: "127.0.0.1"}},
		PodIP: "127.0.0.1", PodIPs: []corev1.PodIP{{IP: "127.0.0.1"}},
	}
	regular := len(p.containers) - p.ephemeral
	running, failed := 0, 0
	for i, c := range p.containers {
		s := c.status(p.uid)
		if i >= regular {
			status.EphemeralContainerStatuses = append(status.EphemeralContainerStatuses, s)
			continue
		}
		status.ContainerStatuses = append(status.ContainerStatuses, s)
		switch {
		case s.State.Running != nil:
			running++
		case s.State.Terminated.ExitCode != 0:
			failed++
		}
		if i == 0 {
			status.StartTime = &c.started
		}
	}
	ready := corev1.ConditionTrue
	if running < regular {
		ready = corev1.ConditionFalse
	}
	switch {
	case running > 0:
	case failed > 0:
		status.Phase = corev1.PodFailed
	default:
		status.Phase = corev1.PodSucceeded
	}
	now := metav1.Now()
	for _, condition := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodScheduled} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, condition := range []corev1.PodConditionType{corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: ready, LastTransitionTime: now})
	}
	return status
}

func (c *container) status(pod types.UID) corev1.ContainerStatus {
	id := "local://" + string(pod) + "/" + c.name
	s := corev1.ContainerStatus{Name: c.name, Image: c.image, ImageID: "none", ContainerID: id}
	running := c.running()
	s.Ready, s.Started = running, &running
	if running {
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: c.started}
		return s
	}
	s.State.Terminated = &corev1.ContainerStateTerminated{
		ExitCode: int32(c.code), Reason: "Completed",
		StartedAt: c.started, FinishedAt: c.finished, ContainerID: id,
	}
	if c.code != 0 {
		s.State.Terminated.Reason = "Error"
	}
	return s
}
