// Package idp is a real OpenID provider for the demo and the tests: zitadel's
// OP library over TLS, with a login page, a second factor, PKCE, rotating
// refresh tokens, the device grant, key rotation, and switches that make it
// fail in the ways that providers and attackers do.
//
// Nothing here is a mock. Every answer that no switch has touched is the
// library's own, signed with a key made at start and served under a certificate
// authority made at start; a client that works here speaks the protocol.
//
// It is not a production provider. State is in memory and gone with the
// process, a person's password is his own short name, and MintIDToken signs
// whatever it is asked to sign: that is its purpose. It listens on loopback only.
//
// Two drivers stand in for the person in front of the screen: Browser fills in
// the pages over plain HTTP, and Chromium does the same in a real headless
// browser.
package idp
