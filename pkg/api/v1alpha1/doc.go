// +kubebuilder:object:generate=true
// +groupName=kube-zt.io

// Package v1alpha1 holds the objects that people write for zt, in API group
// kube-zt.io, version v1alpha1. The same YAML is read from a file by every
// store; decoding is strict (package manifest), so a field that stands here is
// the whole of what may be written.
//
// Objects say what is wished. What the gateway has seen or decided lives in its
// state and is never written back into a file that people own.
package v1alpha1

// GroupVersion is the apiVersion of every object in this package.
const GroupVersion = "kube-zt.io/v1alpha1"
