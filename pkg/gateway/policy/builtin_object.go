package policy

import (
	"slices"
	"strings"
)

// A request that creates an object names it in its body alone, and whom a
// binding binds stands nowhere else. So for the few kinds with which somebody
// could take what is zt's own the body is read before it is sent on.

// Object is what the body of a request says of the object that it writes. A
// patch says only what it changes.
type Object struct {
	Name         string
	GenerateName string
	// RoleRef is the name of the role that a binding gives to Subjects.
	RoleRef  string
	Subjects []BoundSubject
	// Signer is whom a CertificateSigningRequest asks.
	Signer string
	// Admissions are what an admission configuration looks at.
	Admissions []Admission
	// ParamNamespace is where an admission policy's binding finds parameters.
	ParamNamespace string
}

// BoundSubject is somebody whom a binding binds.
type BoundSubject struct {
	Kind, Namespace, Name string
}

const (
	certificatesGroup = "certificates.k8s.io"
	extensionsGroup   = "apiextensions.k8s.io"
	aggregationGroup  = "apiregistration.k8s.io"
)

// ownAccounts is how the names of zt's accounts begin where they are users.
const ownAccounts = "system:serviceaccount:" + SystemNamespace + ":"

// wideGroups are those that zt's accounts are in with many others.
var wideGroups = []string{"system:authenticated", "system:serviceaccounts"}

// WantsObject reports whether in must not be let through before Decide has seen
// it with its Object.
func (c *Compiled) WantsObject(in *Input) bool {
	q := newQuery(in)
	if !q.namesInBody() {
		return false
	}
	var h holder
	c.hold(&h, in.Roles)
	return !h.admin
}

// namesInBody: what is updated or patched is named in the path, too, but whom a
// binding binds is not.
func (q *query) namesInBody() bool {
	switch {
	case !q.resource, q.sub != "":
		return false
	case q.bit == verbCreate:
		return q.binds() || q.admits() ||
			q.group == rbacGroup && (q.res == "roles" || q.res == "clusterroles") ||
			q.group == extensionsGroup && q.res == "customresourcedefinitions" ||
			q.group == aggregationGroup && q.res == "apiservices" ||
			q.group == certificatesGroup && q.res == "certificatesigningrequests"
	case q.bit&(verbUpdate|verbPatch) != 0:
		return q.binds() || q.admits()
	}
	return false
}

func (q *query) binds() bool {
	return q.group == rbacGroup && (q.res == "rolebindings" || q.res == "clusterrolebindings")
}

// kubeletSigner is asked for the certificates of nodes, and Kubernetes approves
// its requests by itself for whoever RBAC lets: nobody looks at them as at others.
const kubeletSigner = "kubernetes.io/kube-apiserver-client-kubelet"

// builtinObjectDeny judges a write by what it writes.
func builtinObjectDeny(q *query) refused {
	if q.group == certificatesGroup && q.res == "certificatesigningrequests" && q.sub != "" {
		return because("a certificate can name whomever its request names, zt's own accounts included")
	}
	o := q.object
	if o == nil || !q.namesInBody() {
		return refused{}
	}
	switch q.group {
	case extensionsGroup:
		if strings.HasSuffix(o.Name, "."+apiGroup) {
			return because(ownDefinitions)
		}
	case aggregationGroup:
		return apiServiceDeny(o.Name, false)
	case certificatesGroup:
		if o.Signer == kubeletSigner {
			return because("it would be approved unseen, and the certificate makes a node, which may read what its pods may, zt's own included")
		}
	case rbacGroup:
		return q.rbacObjectDeny(o)
	case admissionGroup:
		return q.admissionDeny(o)
	}
	return refused{}
}

func (q *query) rbacObjectDeny(o *Object) refused {
	switch {
	case strings.HasPrefix(o.Name, ownPrefix), strings.HasPrefix(o.GenerateName, ownPrefix):
		return because(ownRBAC)
	case q.res == "clusterroles" && slices.Contains(wideRoles, o.Name):
		return because(wideRole)
	case strings.HasPrefix(o.RoleRef, ownPrefix):
		return because("the roles of zt's own accounts are for nobody else")
	case slices.ContainsFunc(o.Subjects, q.bindsOwn):
		return because("it would give rights to zt's own accounts, which then could do more than zt is to do")
	}
	return refused{}
}

// bindsOwn reports whether s is, or holds, an account of zt's. What a group of
// nearly everybody may do in one namespace matters where rights over accounts
// are rights over the cluster.
func (q *query) bindsOwn(s BoundSubject) bool {
	switch s.Kind {
	case "ServiceAccount":
		return s.Namespace == SystemNamespace
	case "User":
		return strings.HasPrefix(s.Name, ownAccounts)
	case "Group":
		return s.Name == "system:serviceaccounts:"+SystemNamespace ||
			(q.namespace == "" || q.namespace == "kube-system") && slices.Contains(wideGroups, s.Name)
	}
	return false
}
