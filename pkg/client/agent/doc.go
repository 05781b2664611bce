// Package agent is the one background process of a user that owns his secrets:
// refresh tokens, access tokens, trust certificates and the handle of the device
// key. Every command is a thin client of it over a Unix socket, so by
// construction there is one login for two hundred parallel calls, one writer of
// the refresh token and one warm connection.
//
// Trusted: processes of the same user, known by the kernel's word (peer
// credentials) on a socket 0600 in a directory 0700. That is the border: the
// agent defends against copied files and stolen tokens, not against malware that
// runs as the same user. Refused: any other user, whatever he sends; a request of
// another protocol; more than 1 MiB of it.
//
// The agent is spawned by the first command that needs it, in a session of its
// own and with none of its parent's standard files, since client-go waits for
// the plugin's stdout to close. It leaves when nobody is logged in and nothing is
// carried. Nothing secret is in its log, its environment or its arguments; a
// newer binary takes over by way of an inherited pipe.
package agent
