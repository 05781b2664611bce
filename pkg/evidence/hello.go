package evidence

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Of TLS (RFC 8446, 4, 4.1.2, 4.2 and 5.1).
const (
	recordHandshake  = 22
	recordHeaderSize = 5
	// maxRecord is the size of the longest plaintext record, in bytes.
	maxRecord          = 1 << 14
	messageClientHello = 1
	messageHeaderSize  = 4
	extServerName      = 0
	extKeyShare        = 51
)

// maxHello is the size of the longest ClientHello that we read, header included.
// It fits one record, so that the hello can be replayed as one.
const maxHello = maxRecord

// Hello is a ClientHello as it was read from a stream.
type Hello struct {
	// Raw is what to replay to whom the hello was meant for: the message in one
	// record, however many records and reads it came in.
	Raw []byte
	// Message is the whole handshake message, its header included and the record
	// headers not: what a proof signs. It is a part of Raw.
	Message []byte
	// ServerName is the SNI, empty if there is none.
	ServerName string
	// KeyShares are the groups that the client has sent a key share for, in its
	// order, those unknown to Go included.
	KeyShares []tls.CurveID
}

// ReadHello reads a ClientHello of at most 16 KiB from r, in any number of
// records and reads, and not a byte beyond the record in which it ends. A record
// that holds anything after the hello is refused: nobody honest sends one.
func ReadHello(r io.Reader) (*Hello, error) {
	h, err := readHello(r)
	if err != nil {
		return nil, fmt.Errorf("read client hello: %w", err)
	}
	return h, nil
}

func readHello(r io.Reader) (*Hello, error) {
	// The first bytes stay free for the header of the one record of Raw.
	raw := make([]byte, recordHeaderSize, 1024)
	want := messageHeaderSize
	for len(raw)-recordHeaderSize < want {
		var err error
		if raw, err = appendRecord(raw, r); err != nil {
			return nil, err
		}
		message := raw[recordHeaderSize:]
		if message[0] != messageClientHello {
			return nil, fmt.Errorf("handshake message %d instead", message[0])
		}
		if len(message) < messageHeaderSize {
			continue
		}
		want = messageHeaderSize + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
		if want > maxHello {
			return nil, fmt.Errorf("%d bytes, at most %d are allowed", want, maxHello)
		}
	}
	message := raw[recordHeaderSize:]
	if len(message) != want {
		return nil, errors.New("something else in the same record")
	}
	// 0x0301 is what a first record says (RFC 8446, 5.1).
	copy(raw, []byte{recordHandshake, 3, 1, byte(want >> 8), byte(want)})
	h := &Hello{Raw: raw, Message: message}
	if err := h.parse(message[messageHeaderSize:]); err != nil {
		return nil, err
	}
	return h, nil
}

// appendRecord reads one handshake record and appends its content to b.
func appendRecord(b []byte, r io.Reader) ([]byte, error) {
	var head [recordHeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[3:]))
	switch {
	case head[0] != recordHandshake:
		return nil, fmt.Errorf("record of type %d instead", head[0])
	case head[1] != 3:
		return nil, fmt.Errorf("record of version %d.%d", head[1], head[2])
	case n == 0 || n > maxRecord:
		return nil, fmt.Errorf("record of %d bytes", n)
	case len(b)-recordHeaderSize+n > maxHello:
		return nil, fmt.Errorf("more than %d bytes", maxHello)
	}
	b = slices.Grow(b, n)
	b = b[:len(b)+n]
	if _, err := io.ReadFull(r, b[len(b)-n:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// parse reads the two extensions that we need and checks the frame of the rest.
// crypto/tls reads it all again; where it would differ from us it is the
// handshake that fails, and Acceptor looks at the result.
func (h *Hello) parse(body []byte) error {
	p := parser{rest: body}
	p.bytes(2 + 32) // legacy_version, random
	p.vector8()     // legacy_session_id
	p.vector16()    // cipher_suites
	p.vector8()     // legacy_compression_methods
	if p.atEnd() {  // no extensions: not TLS 1.3
		return p.err()
	}
	extensions := parser{rest: p.vector16()}
	if p.failed || !p.atEnd() {
		return errMalformed
	}
	seen := make(map[uint16]bool)
	for !extensions.atEnd() {
		id := extensions.uint16()
		data := parser{rest: extensions.vector16()}
		if extensions.failed || seen[id] {
			return errMalformed
		}
		seen[id] = true
		switch id {
		case extServerName:
			h.ServerName = data.serverName()
		case extKeyShare:
			h.KeyShares = data.keyShares()
		default:
			continue
		}
		if !data.atEnd() || data.failed {
			return errMalformed
		}
	}
	return extensions.err()
}

var errMalformed = errors.New("malformed")

// parser takes a message apart. After the first failure it yields zeros.
type parser struct {
	rest   []byte
	failed bool
}

// atEnd reports whether nothing is left, which a failure means as well.
func (p *parser) atEnd() bool { return len(p.rest) == 0 || p.failed }

func (p *parser) err() error {
	if p.failed {
		return errMalformed
	}
	return nil
}

func (p *parser) bytes(n int) []byte {
	if p.failed || len(p.rest) < n {
		p.failed = true
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) uint16() uint16 {
	if b := p.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) vector8() []byte {
	if b := p.bytes(1); b != nil {
		return p.bytes(int(b[0]))
	}
	return nil
}

func (p *parser) vector16() []byte { return p.bytes(int(p.uint16())) }

// serverName reads the one host name of RFC 6066, 3.
func (p *parser) serverName() string {
	names := parser{rest: p.vector16()}
	var host string
	for !names.atEnd() {
		kind := names.bytes(1)
		name := names.vector16()
		if names.failed || len(name) == 0 || kind[0] != 0 || host != "" {
			p.failed = true
			return ""
		}
		host = string(name)
	}
	return host
}

// keyShares reads the groups of RFC 8446, 4.2.8.
func (p *parser) keyShares() []tls.CurveID {
	shares := parser{rest: p.vector16()}
	var groups []tls.CurveID
	for !shares.atEnd() {
		group := tls.CurveID(shares.uint16())
		if key := shares.vector16(); shares.failed || len(key) == 0 || slices.Contains(groups, group) {
			p.failed = true
			return nil
		}
		groups = append(groups, group)
	}
	return groups
}
