// Package revoke ends what was allowed before. It holds the deny set, compiled
// from the Revocations in force, and the register of everything that lives:
// requests, streams, tunnels.
//
// The order that makes a race end dead: whoever opens something calls Register
// first and Check second; Apply swaps the deny set first and walks the register
// second. Whichever way the two interleave, either Check sees the new set or
// Apply sees the new entry (TestV208).
//
// Nothing here lets anybody in: no refusal means only that nobody revoked.
package revoke
