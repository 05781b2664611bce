package h2conn

import (
	"io"
	"net"
)

// smallRead is the size of the buffer that waits for bytes of HTTP/2, in bytes: a
// stream that carries little keeps no other, so that many idle ones are cheap.
const smallRead = 2 << 10

// maxDrain is how much of what nobody will read any more is taken off the
// connection, in bytes, before the stream is given up.
const maxDrain = 1 << 20

// move copies from body to in until one of them ends, and returns body's error,
// which is io.EOF at a proper end. If in was closed by its owner the rest is
// dropped, up to maxDrain: the other side may just be saying goodbye.
func move(in *pipe, body io.Reader) error {
	small := make([]byte, smallRead)
	for {
		n, err := body.Read(small)
		if n > 0 && !in.give(small[:n]) {
			return drain(body)
		}
		if err == nil && n == len(small) {
			err = moveLarge(in, body)
		}
		if err != nil {
			return err
		}
	}
}

// moveLarge goes on with large reads for as long as they are filled.
func moveLarge(in *pipe, body io.Reader) error {
	large := storage.Get().(*[pipeSize]byte)
	defer storage.Put(large)
	for {
		n, err := body.Read(large[:])
		if n > 0 && !in.give(large[:n]) {
			return drain(body)
		}
		if err != nil || n < len(large) {
			return err
		}
	}
}

// give writes b and reports whether anybody wanted it.
func (p *pipe) give(b []byte) bool {
	_, err := p.Write(b)
	return err == nil
}

func drain(body io.Reader) error {
	if _, err := io.CopyN(io.Discard, body, maxDrain); err != nil {
		return err
	}
	return net.ErrClosed
}
