// Package authn turns a bearer token into an [Identity], or refuses it.
//
// Trusted are two kinds of signatures and nothing else: control's own keys,
// delivered with the state ([Tokens]), and the keys of issuers that the
// operator listed in Kubernetes' AuthenticationConfiguration ([FurtherIssuers]),
// fetched over TLS from the issuer itself. Which of the two a token is for is
// decided by its "iss" alone and is then final: there is no second try.
//
// Before any key is looked at, a token must be exactly what it will be taken
// for: three base64url parts without padding, JSON objects in which no name
// stands twice (not even in other letters, since decoders downstream fold
// case), no header that names a key or a place to get one, no critical
// extension, no compression, a signature algorithm of the issuer's list, times
// that are numbers. Decoders that come later never see anything else.
//
// An identity is the pair of issuer and subject. Names are for people and for
// Kubernetes' RBAC; one that belongs to Kubernetes ("system:…"), to zt itself
// or to no character set that survives an HTTP header is refused, and a further
// issuer's names must carry a prefix of their own, so that they can never be
// taken for somebody who logged in through zt.
//
// It fails closed. When an issuer cannot be reached, keys that were good stay
// good for at most 24 hours; without keys its tokens are refused, and nobody
// else notices. Readiness never depends on an issuer.
package authn
