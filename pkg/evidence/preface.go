package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// magic opens a preface. A TLS stream begins with recordHandshake, so the two
// are told apart by the first byte.
const magic = "ZTP1"

// ErrNoPreface says that a stream begins with something else than a preface.
var ErrNoPreface = errors.New("no preface")

// WritePreface writes the preface that carries jws in one Write.
func WritePreface(w io.Writer, jws string) error {
	if jws == "" || len(jws) > maxProof {
		return fmt.Errorf("write preface: %d bytes, want 1 to %d", len(jws), maxProof)
	}
	frame := make([]byte, 0, len(magic)+2+len(jws))
	frame = append(frame, magic...)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(jws)))
	frame = append(frame, jws...)
	if _, err := w.Write(frame); err != nil {
		return fmt.Errorf("write preface: %w", err)
	}
	return nil
}

// ReadPreface reads a preface and not a byte more, and returns the JWS in it,
// unverified. The error wraps ErrNoPreface if the stream does not begin with
// one, and r's error if r fails.
func ReadPreface(r io.Reader) (string, error) {
	var head [len(magic)]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", fmt.Errorf("read preface: %w", err)
	}
	if string(head[:]) != magic {
		return "", fmt.Errorf("read preface: %w", ErrNoPreface)
	}
	return readProof(r)
}

// readProof reads what follows the magic.
func readProof(r io.Reader) (string, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return "", fmt.Errorf("read preface: %w", err)
	}
	n := binary.BigEndian.Uint16(length[:])
	if n == 0 || n > maxProof {
		return "", fmt.Errorf("read preface: %d bytes, want 1 to %d", n, maxProof)
	}
	jws := make([]byte, n)
	if _, err := io.ReadFull(r, jws); err != nil {
		return "", fmt.Errorf("read preface: %w", err)
	}
	return string(jws), nil
}
