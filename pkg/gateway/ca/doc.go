// Package ca keeps the gateway's signing keys and everything that is signed or
// sealed with them: one authority per purpose (gateway, trust, kubeconfig,
// uplink, and one for each cluster), the key of access tokens, and the key
// under which login state and nonces are sealed.
//
// Every purpose has its own key and its own pool, so a certificate of one
// purpose is nothing to the verifier of another, and each authority carries the
// narrowest constraints that its purpose allows: one extended key usage, a path
// length of zero, and for a cluster only that cluster's own names.
//
// Trusted is the state directory, as long as nobody but its owner can read the
// keys in it: a key file, or a directory of key files, that group or others
// could read or write is refused, and with it the start (V061). A certificate
// without its key is refused too, never replaced, because laptops pin these
// keys. A key without its certificate is what a crash in the middle of the
// first start leaves; the same key is certified again and no pin changes.
//
// Names in a certificate always come from the gateway. Of a certificate
// request only the key and its proof of possession count.
package ca
