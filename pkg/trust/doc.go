// Package trust is the only place that builds a tls.Config, and the only place
// that says what a certificate of zt means.
//
// There are five purposes, each with a key and a pool of its own: gateway
// (server leaves of gw., tunnel. and control), trust (a person's session on a
// device), kubeconfig (stock kubectl on a direct vhost), uplink (a private
// cluster's dial-out) and, per cluster, the cluster's own server CA. A verifier
// here always demands its pool and its URI form, so that a certificate of one
// purpose is worth nothing at another, even where two pools are the same by
// mistake.
//
// What is trusted: a chain under the pool of the purpose, whose leaf is a
// clientAuth-only, non-CA, ECDSA P-256 or P-384 certificate that names exactly
// one session and one proof key of this trust domain, in the one canonical
// spelling, and nothing else. What is refused: everything else, also what
// crypto/x509 would let pass (more names, more usages, a URI in another
// spelling, a pool that is nil and would silently mean the system's roots).
//
// TLS is 1.3 everywhere but toward the upstream kube-apiserver, where 1.2 is
// allowed. No listener that may see a client certificate hands out session
// tickets, so that every handshake is a full one and a revocation is looked at
// in each (golang/go#77217). One configuration sets InsecureSkipVerify:
// [GatewayClient] with a pin, where the root is known only by its hash and
// VerifyConnection does the whole of the verification; TestPinnedGateway and
// TestPinnedResumption prove what it refuses.
//
// Failures that a person can act on have types: [UnknownAuthorityError] carries
// the fingerprint to compare, [ClockError] the times that do not fit.
package trust
