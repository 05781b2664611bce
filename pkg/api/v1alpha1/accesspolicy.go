package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AccessPolicy says what roles may do where. Without a policy that allows, a
// request is refused; a Deny wins over every Allow, in any order.
type AccessPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              AccessPolicySpec `json:"spec"`
}

// AccessPolicySpec is roles × clusters × rules.
type AccessPolicySpec struct {
	// Effect is Allow (default) or Deny.
	Effect PolicyEffect `json:"effect,omitempty"`
	// Roles are names of AccessRoles; "*" means whoever holds any role, and in
	// a Deny also whoever holds none.
	Roles []string `json:"roles"`
	// Clusters by name, or ClusterSelector by labels; exactly one is set.
	// "*" in Clusters means all.
	Clusters        []string              `json:"clusters,omitempty"`
	ClusterSelector *metav1.LabelSelector `json:"clusterSelector,omitempty"`
	Rules           []PolicyRule          `json:"rules"`
	// Enforcement softens this policy's Deny, or the default deny within its
	// roles and clusters, when Permissive.
	Enforcement Enforcement `json:"enforcement,omitempty"`
}

// PolicyEffect is Allow or Deny.
type PolicyEffect string

const (
	EffectAllow PolicyEffect = "Allow"
	EffectDeny  PolicyEffect = "Deny"
)

// PolicyRule covers resource requests or non-resource URLs, like RBAC's. Every
// string may hold "*" as an anchored glob; a resource without a slash never
// covers a sub-resource, "pods/*" and "*/*" do. exec, attach, port-forward and
// proxy are judged as verb create whatever the HTTP method.
type PolicyRule struct {
	Verbs         []string `json:"verbs"`
	APIGroups     []string `json:"apiGroups,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	Namespaces    []string `json:"namespaces,omitempty"` // empty: any, and cluster scope
	ResourceNames []string `json:"resourceNames,omitempty"`

	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
}
