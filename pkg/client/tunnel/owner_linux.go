package tunnel

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// OwnersKnown says that this system tells whose a connection is: without that a
// secretless port could serve nobody.
const OwnersKnown = true

// errNoOwner means that the kernel does not list the connection any more.
var errNoOwner = errors.New("the connection is not listed")

// ownerOf is the user id of the process at the other end of a connection of this
// machine: the kernel lists each socket with its owner (proc(5), /proc/net/tcp).
func ownerOf(peer, own netip.AddrPort) (int, error) {
	// A v4 client of a v6 socket is listed as v4-mapped there.
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		uid, err := scan(table, peer, own)
		if !errors.Is(err, errNoOwner) {
			return uid, err
		}
	}
	return 0, errNoOwner
}

func scan(table string, local, remote netip.AddrPort) (int, error) {
	f, err := os.Open(table)
	if os.IsNotExist(err) {
		return 0, errNoOwner
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid …
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 {
			continue
		}
		if a, ok := parseAddr(fields[1]); !ok || a != local {
			continue
		}
		if b, ok := parseAddr(fields[2]); !ok || b != remote {
			continue
		}
		uid, err := strconv.Atoi(fields[7])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", table, err)
		}
		return uid, nil
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, errNoOwner
}

// parseAddr reads 0100007F:1F90: 32-bit words in the machine's byte order, the
// port in hex.
func parseAddr(s string) (netip.AddrPort, bool) {
	addr, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for i := 0; i < len(raw); i += 4 {
			slices.Reverse(raw[i : i+4])
		}
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), ok
}

var littleEndian = func() bool {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], 1)
	return b[0] == 1
}()
