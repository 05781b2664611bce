// Package profile is what zt keeps on a laptop's disk: one profile per gateway,
// the software device keys and the place of the agent's socket. No token, code
// or refresh token is ever among it.
//
// Trusted: files and directories that belong to this user (or, above them, to
// root) and that nobody else can write. Refused, with the path and the command
// that repairs it: a symlink where a file should be, a foreign owner, anything
// that group or others can write on the way down from the root, a file with
// looser rights than 0600. Every write is a temporary file (O_EXCL, O_NOFOLLOW,
// 0600), synced and renamed, so a reader sees the old or the new content and
// never half of one. TestV071… shows each refusal.
package profile
