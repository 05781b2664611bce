// Package control is the root of trust: it decides who gets a session, a trust
// certificate and an access token, and tells laptops what they may see.
//
// It speaks in two places. On gw.DOMAIN, to anybody: discovery, the device
// check, enrolment, the first certificate of a session and the renewal of one
// that has expired. Inside the tunnel, over a stream whose peer has proved a
// live trust certificate: tokens, renewal, the catalogue, one stream of events,
// and the end of the session. Nothing on gw.DOMAIN mints a token or renews what
// is alive.
//
// The order of a login is fixed: device, then person, then certificate. The
// device check is mute and cheap: a signature over a stateless nonce, verdicts
// from the snapshot in memory, a budget per source, and one answer for every
// cause. What it hands back is sealed state that the laptop carries, so any
// replica goes on with what another began, and a nonce that ties the person's
// ID token to this device and this transaction. A first certificate is issued
// for an ID token with exactly that nonce, once.
//
// Trusted are the configured issuer's signatures, the device key's, and the
// trust authority's; of a session record only what the person may see less by.
// Records never let anybody in: without one, or without its device, the answer
// is to log in again.
//
// It fails closed. What cannot be recorded in the audit log or the state is not
// issued. An issuer that is down stops logins, and nothing else; no restart is
// needed when it is back.
package control
