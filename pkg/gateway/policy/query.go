package policy

import (
	"slices"
	"strings"
)

// query is an Input as rules read it.
type query struct {
	verb     string
	bit      verbs
	resource bool

	group, res, sub string
	namespace, name string
	path            string
	// collection: the request speaks of many objects at once, so an empty
	// namespace means all of them and an empty name every object.
	collection bool
	object     *Object
}

// verbs is a set of the verbs that requests have.
type verbs uint16

const (
	verbGet verbs = 1 << iota
	verbList
	verbWatch
	verbCreate
	verbUpdate
	verbPatch
	verbDelete
	verbDeleteCollection
	verbProxy
	verbPost
	verbPut
	verbOptions
	verbImpersonate
	verbOther // one that we do not know: only "*" covers it
)

var verbNames = []string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
	"proxy", "post", "put", "options", "impersonate",
}

func verbBit(verb string) verbs {
	if i := slices.Index(verbNames, verb); i >= 0 {
		return 1 << i
	}
	return verbOther
}

func newQuery(in *Input) query {
	q := query{
		verb: in.Verb, resource: in.ResourceRequest,
		group: in.APIGroup, res: in.Resource, sub: in.Subresource,
		namespace: in.Namespace, name: in.Name, path: in.Path, object: in.Object,
	}
	switch {
	case !q.resource && q.verb == "head":
		q.verb = "get"
	case q.resource && q.verb == "proxy" && q.sub == "":
		// The old form /api/v1/proxy/…: the same thing by another path.
		q.sub = "proxy"
	case q.resource && streams(q.sub):
		// A WebSocket upgrade is a GET; what it does is not. Whoever may only
		// read must not get a shell by choosing the method.
		q.verb = "create"
	}
	q.bit = verbBit(q.verb)
	if strings.HasPrefix(q.verb, "impersonate") {
		// KEP-5284 splits the verb: impersonate:user-info, impersonate-on:….
		q.bit = verbImpersonate
	}
	q.collection = q.resource && q.bit&(verbList|verbWatch|verbDeleteCollection) != 0
	return q
}

// streams reports whether a sub-resource gives a way into what runs.
func streams(sub string) bool {
	return sub == "exec" || sub == "attach" || sub == "portforward" || sub == "proxy"
}

// kubelet reports whether q would reach a node's kubelet, and with it every
// pod there, past all policies about pods.
func (q *query) kubelet() bool {
	return q.resource && q.group == "" && q.res == "nodes" && q.sub == "proxy"
}
