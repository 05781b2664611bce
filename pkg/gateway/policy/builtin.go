package policy

import "strings"

// What follows holds for every cluster, whatever policies say, and Permissive
// does not soften it: with any of it a cluster-admin could give himself what zt
// refuses him.

const (
	apiGroup  = "kube-zt.io"
	rbacGroup = "rbac.authorization.k8s.io"
	// Names of zt's own accounts and RBAC objects begin so.
	ownPrefix = "zt-"
)

// builtinDeny says why q is refused, or "".
func builtinDeny(q *query, admin bool) string {
	if !q.resource {
		return ""
	}
	if q.bit == verbImpersonate && strings.HasPrefix(q.name, "system:") {
		return "names that begin with \"system:\" are Kubernetes' own and are never impersonated"
	}
	if admin {
		return ""
	}
	switch {
	case q.namespace == SystemNamespace, q.res == "namespaces" && q.name == SystemNamespace:
		return "namespace " + SystemNamespace + " is zt's own"
	case q.group == apiGroup:
		return "objects of " + apiGroup + " are zt's own"
	case q.bit == verbImpersonate && ownIdentity(q):
		return "zt's own accounts and roles cannot be impersonated"
	case q.group == "" && q.res == "serviceaccounts" && q.sub == "token" && strings.HasPrefix(q.name, ownPrefix):
		return "tokens of zt's own accounts are not for people"
	case q.group == "" && q.res == "secrets" && q.namespace == "" && q.collection:
		return "secrets of all namespaces include those of " + SystemNamespace + "; name a namespace with -n"
	case !q.writes():
		return ""
	case q.group == "apiextensions.k8s.io" && q.res == "customresourcedefinitions" && (strings.HasSuffix(q.name, "."+apiGroup) || q.sweeps()):
		return "the definitions of " + apiGroup + " are zt's own"
	case q.group == "apiregistration.k8s.io" && q.res == "apiservices" && (strings.HasSuffix(q.name, "."+apiGroup) || q.sweeps()):
		return "the API services of " + apiGroup + " are zt's own"
	case q.group == rbacGroup && (strings.HasPrefix(q.name, ownPrefix) || q.sweeps()):
		return "RBAC objects named " + ownPrefix + "* are zt's own"
	}
	return builtinObjectDeny(q)
}

// ownIdentity: nesting must not lead to a role that zt did not give.
func ownIdentity(q *query) bool {
	switch q.res {
	case "serviceaccounts":
		return strings.HasPrefix(q.name, ownPrefix) || q.name == ""
	case "groups":
		return strings.HasPrefix(q.name, "zt:") || q.name == ""
	}
	return false
}

// writes reports whether q changes something.
func (q *query) writes() bool { return q.bit&(verbGet|verbList|verbWatch) == 0 }

// sweeps reports whether q deletes whatever is there, zt's own included.
func (q *query) sweeps() bool { return q.bit == verbDeleteCollection }

// builtinAllow is what every client needs before it can ask anything: discovery
// and questions about oneself. The caller has made sure that the cluster is
// visible; a Deny has been asked before.
func builtinAllow(q *query) bool {
	if !q.resource {
		return q.bit == verbGet && discovery(q.path)
	}
	if q.bit != verbCreate || q.sub != "" {
		return false
	}
	switch q.group {
	case "authentication.k8s.io":
		return q.res == "selfsubjectreviews"
	case "authorization.k8s.io":
		return q.res == "selfsubjectaccessreviews" || q.res == "selfsubjectrulesreviews"
	}
	return false
}

// discovery knows /api, /api/VERSION, /apis, /apis/GROUP, /apis/GROUP/VERSION,
// /version and all of /openapi. Letters' case counts.
func discovery(path string) bool {
	if strings.Contains(path, "..") || strings.Contains(path, "//") {
		return false
	}
	depth := strings.Count(strings.TrimSuffix(path, "/"), "/")
	switch {
	case under(path, "/api"):
		return depth <= 2
	case under(path, "/apis"):
		return depth <= 3
	case under(path, "/version"):
		return depth <= 1
	default:
		return under(path, "/openapi")
	}
}

func under(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/')
}
