// Package impersonate puts the person's identity on a request to the
// kube-apiserver and holds the account that may do so.
//
// Refused is every request that tries to choose an identity itself: a header
// that begins with "Impersonate-" in whatever letters, and whatever looks like
// one to a sloppy parser. Nothing that a client sent is forwarded because it
// was there: the header set is built anew from an allow-list, and identity and
// credential are written last, in the RoundTripper, after hop-by-hop headers
// went (golang/go#50580), so that no "Connection: Impersonate-User" can take
// them away again. Without a complete identity nothing is sent at all.
//
// Names that begin with "system:" are never sent; groups are the zt: roles and
// nothing else.
//
// The account behind it, zt-impersonate, may impersonate and do nothing of its
// own: if every header were lost on the way, Kubernetes would answer 403. In the
// constrained profile (KEP-5284, Kubernetes 1.36) it may not even impersonate
// freely: identity and action are both authorised, and [Prover] proves again and
// again that no rule lets the legacy verb in by the back door, because the API
// server tries that one last and then believes it.
package impersonate
