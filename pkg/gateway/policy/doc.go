// Package policy answers two questions and nothing else: which roles a person
// on a device holds, and whether a request of somebody with these roles may
// pass. It is pure: no I/O, no clock, no HTTP; time comes in with the question,
// and the answer is a value.
//
// Trusted is only what the caller proved before: the roles of a verified token,
// a cluster's name taken from the listener, attributes that Kubernetes' own
// RequestInfo read from a canonical path. Everything else fails closed: what no
// policy allows is refused, an unknown cluster, role, verb or resource never
// matches an Allow, and a Deny wins over every Allow in any order. Where a Deny
// and a request overlap without being equal (a list across all namespaces
// against a Deny in one), the Deny wins too.
//
// A Compiled is immutable and may be used by any number of goroutines; a reload
// makes a new one, so a decision never mixes two versions.
package policy
