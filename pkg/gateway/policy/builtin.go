package policy

import (
	"slices"
	"strings"
)

// What follows holds for every cluster, whatever policies say, and Permissive
// does not soften it: with any of it a cluster-admin could give himself what zt
// refuses him.

const (
	apiGroup  = "kube-zt.io"
	rbacGroup = "rbac.authorization.k8s.io"
	// Names of zt's own accounts and RBAC objects begin so.
	ownPrefix = "zt-"
)

// refused is why something is refused, and what else would pass; the zero value
// refuses nothing.
type refused struct{ why, hint string }

func because(why string) refused { return refused{why: why} }

// builtinDeny judges q before any policy does.
func builtinDeny(q *query, admin bool) refused {
	if !q.resource {
		return refused{}
	}
	if q.bit == verbImpersonate && strings.HasPrefix(q.name, "system:") {
		return because("names that begin with \"system:\" are Kubernetes' own and are never impersonated")
	}
	if admin {
		return refused{}
	}
	switch {
	case q.ownNamespace():
		return because("namespace " + SystemNamespace + " is zt's own")
	case q.group == apiGroup:
		return because("objects of " + apiGroup + " are zt's own")
	case q.bit == verbImpersonate && ownIdentity(q):
		return because("zt's own accounts and roles cannot be impersonated")
	case q.group == "" && q.res == "serviceaccounts" && q.sub == "token" && strings.HasPrefix(q.name, ownPrefix):
		return because("tokens of zt's own accounts are not for people")
	case q.group == "" && (q.res == "secrets" || q.res == "configmaps") && q.namespace == "" && q.collection:
		// Of what lies in zt's namespace only these hold what must not be known. To
		// refuse pods or events, too, would cost everybody `get -A` for nothing.
		return refused{q.res + " of all namespaces include those of " + SystemNamespace, "name a namespace with -n"}
	case !q.writes():
		return refused{}
	}
	if r := q.writesOwn(); r.why != "" {
		return r
	}
	return builtinObjectDeny(q)
}

// ownNamespace: by whatever way q leads into it.
func (q *query) ownNamespace() bool {
	switch {
	case q.namespace == SystemNamespace:
		return true
	case q.res == "namespaces", q.group == "project.openshift.io": // a project is the namespace under another name
		return q.name == SystemNamespace || q.sweeps()
	case q.kubelet():
		// The kubelet's own paths name namespace and pod: exec, run, attach,
		// containerLogs and the directories of its logs. A policy that lists
		// nodes/proxy meant the node and not the gateway on it.
		return strings.Contains(q.path, SystemNamespace)
	}
	return false
}

// writesOwn judges a write by what stands in its path.
func (q *query) writesOwn() refused {
	switch q.group {
	case "":
		if q.sweeps() && q.namespace == "" {
			return refused{q.res + " of all namespaces include those of " + SystemNamespace, "name a namespace with -n"}
		}
	case extensionsGroup:
		if q.res == "customresourcedefinitions" && (strings.HasSuffix(q.name, "."+apiGroup) || q.sweeps()) {
			return because(ownDefinitions)
		}
	case aggregationGroup:
		if q.res == "apiservices" {
			return apiServiceDeny(q.name, q.sweeps())
		}
	case rbacGroup:
		if strings.HasPrefix(q.name, ownPrefix) || q.sweeps() {
			return because(ownRBAC)
		}
		if q.res == "clusterroles" && slices.Contains(wideRoles, q.name) {
			return because(wideRole)
		}
	case "authorization.openshift.io":
		// OpenShift's second way to the same objects. `oc` has not used it for
		// years, so nobody misses it, and zt needs not know two forms of each.
		if q.sub == "" && slices.Contains([]string{"roles", "clusterroles", "rolebindings", "clusterrolebindings"}, q.res) {
			return refused{"it writes RBAC past what zt guards there", "use the same object of " + rbacGroup}
		}
	case "oauth.openshift.io":
		// To delete a token is how an administrator ends a session: that stays.
		if q.bit&(verbDelete|verbDeleteCollection) == 0 && slices.Contains([]string{"oauthaccesstokens", "oauthauthorizetokens"}, q.res) {
			return because("such a token lets its bearer in as whomever it names, past zt")
		}
	}
	return refused{}
}

const (
	ownDefinitions = "the definitions of " + apiGroup + " are zt's own"
	ownRBAC        = "RBAC objects named " + ownPrefix + "* are zt's own"
	wideRole       = "this role is everybody's, so that zt's own accounts would get what is added to it"
)

// wideRoles are bound to everybody who is authenticated, or to every service
// account, by Kubernetes itself (the first four) and by OpenShift. All others are
// an administrator's to edit; whom he binds to them is looked at there.
var wideRoles = []string{
	"system:basic-user", "system:discovery", "system:public-info-viewer", "system:service-account-issuer-discovery",
	"basic-user", "cluster-status", "console-extensions-viewer", "helm-chartrepos-viewer", "self-access-reviewer",
	"system:oauth-token-deleter", "system:openshift:discovery", "system:openshift:public-info-viewer", "system:scope-impersonation", "system:webhook",
}

// apiServiceDeny guards who answers for a group. Whoever answers for a built-in
// one reads what everybody writes to it, and can tell the gateway any story about
// its own rights. metrics.k8s.io and the like are served by others by design.
func apiServiceDeny(name string, sweeps bool) refused {
	version, group, _ := strings.Cut(name, ".")
	switch {
	case group == apiGroup || strings.HasSuffix(group, "."+apiGroup) || sweeps:
		return because("the API services of " + apiGroup + " are zt's own")
	case version != "" && slices.Contains(builtinGroups, group):
		return because("this part of the API is Kubernetes' own, and who answers for it would see what zt writes and asks")
	}
	return refused{}
}

// builtinGroups are served by the kube-apiserver itself.
var builtinGroups = []string{
	"", "admissionregistration.k8s.io", extensionsGroup, aggregationGroup, "apps", "authentication.k8s.io", "authorization.k8s.io",
	"autoscaling", "batch", certificatesGroup, "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io", "extensions",
	"flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "networking.k8s.io", "node.k8s.io", "policy", rbacGroup,
	"resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "storagemigration.k8s.io",
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
