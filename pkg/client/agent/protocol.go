package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

// Protocol is the version of what is spoken on the socket. A request of another
// one is refused, with the command that helps.
const Protocol = 1

// maxFrame bounds a frame's payload, in bytes.
const maxFrame = 1 << 20

// Kinds of frames. A frame is a byte, a big-endian uint32 length, and a payload.
const (
	frameRequest  = 'q' // client: Request
	frameOpened   = 'o' // client: answer to frameOpen, empty or why it failed
	frameCleaned  = 'c' // client: answer to frameClean, JSON list of files
	frameAlive    = 'a' // agent: nothing but that it is there
	frameProgress = 'p' // agent: what is going on, for a terminal
	frameNotice   = 'n' // agent: what the person must read, as it is
	frameDebug    = 'd' // agent: a line of the log, for --verbose
	frameOpen     = 'b' // agent: a URL to show in the browser
	frameClean    = 'k' // agent: JSON Cleaning, files to take a profile's contexts out of
	frameResult   = 'r' // agent: the result, JSON or what the operation says
	frameFault    = 'e' // agent: fault.Fault
)

// Op is what a client wants.
type Op string

// The operations.
const (
	OpCredential Op = "credential"
	OpTrust      Op = "trust"
	OpLogin      Op = "login"
	OpLogout     Op = "logout"
	OpClusters   Op = "clusters"
	OpConnect    Op = "connect"
	OpAccess     Op = "access"
	OpStatus     Op = "status"
	OpTunnel     Op = "tunnel"
	OpDevice     Op = "device"
	OpEnroll     Op = "enroll"
	OpRepin      Op = "repin"
	OpStop       Op = "stop"
)

// Request opens a conversation. It is the hello, too.
type Request struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
	// Binary is the client's own path: a newer one takes the agent's place.
	Binary  string       `json:"binary,omitempty"`
	Op      Op           `json:"op"`
	Profile profile.Name `json:"profile,omitempty"`
	// Parent is the process that runs the client, kubectl for a credential.
	Parent int `json:"parent,omitempty"`
	// Attended says that a person sits at the terminal, Display that a browser
	// can be shown to him, QR that the terminal can draw.
	Attended bool `json:"attended,omitempty"`
	Display  bool `json:"display,omitempty"`
	QR       bool `json:"qr,omitempty"`
	Verbose  bool `json:"verbose,omitempty"`
	// Environment is how the person's shell gets out to the network; nil says
	// nothing about it, an empty one that there is no proxy.
	Environment *tunnel.Environment `json:"environment,omitempty"`
	Args        json.RawMessage     `json:"args,omitempty"`
}

func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("frame of %d bytes", len(payload))
	}
	b := make([]byte, 0, 5+len(payload))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	_, err := w.Write(b)
	return err
}

func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes", n)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	return head[0], payload, nil
}
