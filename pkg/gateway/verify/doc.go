// Package verify judges what a device says of itself before anybody has logged
// in. It is cheap on purpose: one HMAC, one signature, no look-up, no state, and
// no replica has to ask another.
//
// Trusted is a signature by the device key over a statement that names this
// trust domain, a nonce of ours that is at most a minute old, and a time within
// fifteen minutes of ours. The signature comes first, so nothing that an
// unsigned message says is looked at. Everything in the statement but the key is
// a claim: tier, whatever a client calls it, is [v1alpha1.TierSoftware] here,
// because no attestation is verified yet (V044).
//
// It cannot know whether a device is revoked or approved; that is for control,
// which says no more to a stranger than this package does.
package verify
