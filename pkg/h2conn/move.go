package h2conn

import (
	"io"
	"net"
)

// Sizes of the buffers that wait for bytes of HTTP/2, in bytes. A stream that
// carries little waits with the small one, so that many idle streams are cheap.
const (
	smallRead = 2 << 10
	largeRead = 32 << 10
)

// maxDrain is how much of what nobody will read any more is taken off the
// connection, in bytes, before the stream is given up.
const maxDrain = 1 << 20

// move copies from body to in until one of them ends, and returns body's error,
// which is io.EOF at a proper end. If in was closed by its owner the rest is
// dropped, up to maxDrain: the other side may just be saying goodbye.
func move(in *pipe, body io.Reader) error {
	small := make([]byte, smallRead)
	buffer := small
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := in.Write(buffer[:n]); err != nil {
				return drain(body)
			}
		}
		if err != nil {
			return err
		}
		switch {
		case n < smallRead:
			buffer = small
		case len(buffer) == smallRead:
			buffer = make([]byte, largeRead)
		}
	}
}

func drain(body io.Reader) error {
	if _, err := io.CopyN(io.Discard, body, maxDrain); err != nil {
		return err
	}
	return net.ErrClosed
}
