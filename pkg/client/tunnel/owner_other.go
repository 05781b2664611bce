//go:build !linux

package tunnel

import (
	"errors"
	"net/netip"
)

// OwnersKnown says that this system tells whose a connection is: without that a
// secretless port could serve nobody.
const OwnersKnown = false

// ownerOf fails where the system does not say whose connection it is: the
// secretless port then serves nobody.
func ownerOf(_, _ netip.AddrPort) (int, error) {
	return 0, errors.New("this system does not tell whose connection it is")
}
