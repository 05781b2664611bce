// Package evidence holds the artefacts that one side signs and the other
// believes, and the format in which a stream carries them.
//
// A device statement is signed by the device key and says what a laptop wants of
// control. A peer proof is signed by the proof key that a trust certificate
// names, and says: the TLS handshake that begins with exactly this ClientHello is
// mine. The agent puts it in front of kubectl's own bytes:
//
//	"ZTP1"  uint16 length (big endian, at most 4096)  JWS  TLS records
//
// What is trusted: an ES256 signature by the key whose thumbprint stands in a
// trust certificate under the trust pool. User, session and device are read from
// that certificate, never from claims, and nothing that the edge says about a
// stream counts.
//
// What is refused, and how. What proves nothing is cut: a preface that is
// malformed or not signed, a hash that is not this ClientHello's, a proof that
// was seen before. What is genuine but must not pass (too old, for another
// cluster, revoked) gets its TLS handshake and a [Peer] with a Refusal, so that
// the person can be told. A stream without a preface is direct, whatever the
// edge calls it.
//
// Why the whole ClientHello and not its random: an edge that keeps a preface can
// send a hello of its own with the copied random. Why no HelloRetryRequest: only
// the first hello is signed, and after a retry the edge could put its own key
// share into the second. So the key exchange is limited to the groups for which
// the signed hello has key shares, and an [Acceptor] refuses when Go supports
// none of them. The tests named after the attacks in acceptor_attack_test.go
// play each of them.
package evidence
