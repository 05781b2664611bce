// Package login is the laptop's side of the person's identity provider: OpenID
// Connect by authorisation code with PKCE, by device code, refresh, userinfo and
// revocation. It keeps nothing; the agent owns what it returns.
//
// Trusted: the issuer, client id and certificate authority that the caller took
// from a fixed profile, and what the issuer signs. Not trusted: everything else
// that arrives. In particular
//
//   - the discovery document must name exactly the issuer asked for, and https
//     endpoints only; no request follows a redirect to another host, and none
//     that carries a secret follows any redirect (V007);
//   - PKCE is S256 or there is no login (V004);
//   - the redirect is 127.0.0.1 by number, and the gate on it lets one browser
//     navigation with the right state pass, once (V001, V005, V006);
//   - the callback must carry the issuer where the provider promises it, so that
//     a code of one provider is never shown to another (V002, RFC 9207);
//   - an ID token counts with the provider's signature by an asymmetric
//     algorithm, our audience, azp and time, and exactly the nonce that the
//     gateway's device check gave (V003);
//   - a device code is shown, never opened with the code filled in (V013);
//   - no answer is longer than 1 MiB or slower than 30 s (V015), and no text of
//     the provider reaches a terminal unescaped or longer than 1 KiB (V008).
//
// It fails closed, with an *Error of one of the kinds below. Tokens are Secret:
// they print as a placeholder.
package login
