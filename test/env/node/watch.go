package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// watchPods follows the pods of this node and those of none until ctx ends, and
// returns when it has seen those that exist. The function that it returns waits
// for the end.
func (n *Node) watchPods(ctx context.Context) (wait func(), err error) {
	nothing := func() {}
	own, err := n.follow(ctx, fields.OneTermEqualSelector("spec.nodeName", n.config.Name), n.sync, n.forget)
	if err != nil {
		return nothing, err
	}
	free, err := n.follow(ctx, fields.OneTermEqualSelector("spec.nodeName", ""), n.bind, nil)
	if err != nil {
		return own, err
	}
	return func() { own(); free() }, nil
}

func (n *Node) follow(ctx context.Context, which fields.Selector, changed, deleted func(context.Context, *corev1.Pod)) (wait func(), err error) {
	factory := informers.NewSharedInformerFactoryWithOptions(n.config.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = which.String() }))
	informer := factory.Core().V1().Pods().Informer()
	call := func(f func(context.Context, *corev1.Pod), object any) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		if p, ok := object.(*corev1.Pod); ok && f != nil && ctx.Err() == nil {
			f(ctx, p)
		}
	}
	handled, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { call(changed, object) },
		UpdateFunc: func(_, object any) { call(changed, object) },
		DeleteFunc: func(object any) { call(deleted, object) },
	})
	if err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), handled.HasSynced) {
		return factory.Shutdown, context.Cause(ctx)
	}
	return factory.Shutdown, nil
}

// bind takes a pod that no one else takes: there is no scheduler. One that asks
// for a certain node or scheduler stays as it is.
func (n *Node) bind(ctx context.Context, object *corev1.Pod) {
	if object.DeletionTimestamp != nil || len(object.Spec.NodeSelector) > 0 || object.Spec.SchedulerName != corev1.DefaultSchedulerName {
		return
	}
	err := n.config.Client.CoreV1().Pods(object.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, UID: object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: n.config.Name},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		n.report(ctx, object, "bind", err)
	}
}

// sync brings the processes in line with a pod of this node.
func (n *Node) sync(ctx context.Context, object *corev1.Pod) {
	key := podKey{object.Namespace, object.Name}
	n.mu.Lock()
	p := n.pods[key]
	n.mu.Unlock()
	if p != nil && p.uid != object.UID { // deleted and made anew between two looks
		n.forget(ctx, object)
		p = nil
	}
	switch {
	case object.DeletionTimestamp != nil:
		go n.do(func() { n.terminate(ctx, object, p) })
		return
	case p == nil && object.Status.Phase != corev1.PodPending: // of an earlier run of this node
		return
	case p == nil:
		var err error
		if p, err = n.newPod(ctx, object); err != nil {
			n.report(ctx, object, "make its directory", err)
			return
		}
		n.mu.Lock()
		n.pods[key] = p
		n.mu.Unlock()
	}
	report := func() {
		if ctx.Err() == nil {
			n.writeStatus(ctx, object, p)
		}
	}
	if p.startMissing(object, report) {
		report()
	}
}

// terminate ends a pod that is being deleted and confirms the deletion.
func (n *Node) terminate(ctx context.Context, object *corev1.Pod, p *pod) {
	if p != nil {
		grace := time.Duration(0)
		if s := object.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		p.end(grace)
	}
	err := n.config.Client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64),
		Preconditions:      &metav1.Preconditions{UID: &object.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		n.report(ctx, object, "confirm its deletion", err)
	}
}

// forget ends what is left of a pod that the API server does not know any more.
func (n *Node) forget(_ context.Context, object *corev1.Pod) {
	key := podKey{object.Namespace, object.Name}
	n.mu.Lock()
	p := n.pods[key]
	delete(n.pods, key)
	n.mu.Unlock()
	if p != nil {
		p.end(0)
		_ = os.RemoveAll(p.dir)
	}
}

// endPods ends all pods without a word to the API server.
func (n *Node) endPods() {
	n.mu.Lock()
	pods := maps.Clone(n.pods)
	n.mu.Unlock()
	for _, p := range pods {
		p.end(0)
	}
}

// writeStatus tells the API server how the pod is. It is told of every change,
// and calls for one pod may overtake each other: the lock makes the last one the
// newest.
func (n *Node) writeStatus(ctx context.Context, object *corev1.Pod, p *pod) {
	p.writing.Lock()
	defer p.writing.Unlock()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": object.UID}, // never that of its successor
		"status":   p.status(),
	})
	if err == nil {
		_, err = n.config.Client.CoreV1().Pods(object.Namespace).
			Patch(ctx, object.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		n.report(ctx, object, "write its status", err)
	}
}

// report logs a failed call. The API server may be down on purpose.
func (n *Node) report(ctx context.Context, object *corev1.Pod, what string, err error) {
	if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		klog.FromContext(ctx).V(1).Info(fmt.Sprintf("node: %s/%s: %s: %v", object.Namespace, object.Name, what, err))
	}
}
