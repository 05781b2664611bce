// Package session is one person's session with one gateway, in the memory of his
// agent: first contact, login, the trust certificate and its renewal, access
// tokens, the catalogue of clusters and the one place where all of it ends.
//
// Trusted: the gateway that the profile pins, for what it decides; the issuer of
// the profile, for who the person is. Checked although they are trusted: that a
// certificate is for our device key, our proof key and our session; that a
// cluster still is the one that was seen first; that nothing of the profile has
// changed since the person agreed to it. A mismatch is refused with the next
// command, and nothing is learnt anew in silence.
//
// There is one writer of the refresh token: every renewal, for whomever, is the
// same flight (V010). Nothing secret is written to disk, logged or put into an
// error; tokens leave as login.Secret.Reveal at the four places that send them.
package session
