package h2conn

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPipeLendsStorage: what peek has lent belongs to nobody else until discard,
// whatever happens to the pipe, and never again if the borrower may have kept it.
func TestPipeLendsStorage(t *testing.T) {
	scribble := func() {
		for range 8 {
			var other pipe
			other.init()
			other.Write(bytes.Repeat([]byte("!"), pipeSize))
		}
	}
	for name, end := range map[string]func(*pipe){
		"abandoned":         func(p *pipe) { p.abandon(io.EOF, io.EOF) },
		"kept by borrower":  func(p *pipe) { p.discard(4, true) },
		"kept, then failed": func(p *pipe) { p.discard(4, true); p.abandon(io.EOF, io.EOF) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // sync.Pool may lose what it was given
				var p pipe
				p.init()
				p.Write([]byte("text"))
				chunk, err := p.peek()
				if err != nil {
					t.Fatal(err)
				}
				end(&p)
				scribble()
				if string(chunk) != "text" {
					t.Fatalf("somebody wrote into what was lent: %q", chunk)
				}
			}
		})
	}
}

// TestPipeWraps: reading in other pieces than writing yields the same bytes, at
// every position in the ring.
func TestPipeWraps(t *testing.T) {
	t.Parallel()
	var p pipe
	p.init()
	var wrote, read []byte
	next := byte(0)
	buffer := make([]byte, pipeSize)
	for i := range 200 {
		piece := make([]byte, 1+(i*7919)%(pipeSize-p.n))
		for j := range piece {
			piece[j] = next
			next++
		}
		if n, err := p.Write(piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
		wrote = append(wrote, piece...)
		for p.n > pipeSize/2 || i == 199 && p.n > 0 {
			if i%2 == 0 {
				n, _ := p.Read(buffer[:1+(i*104729)%pipeSize])
				read = append(read, buffer[:n]...)
			} else {
				chunk, _ := p.peek()
				read = append(read, chunk...)
				p.discard(len(chunk), false)
			}
		}
	}
	if !bytes.Equal(wrote, read) {
		t.Errorf("%d bytes went in, %d others came out", len(wrote), len(read))
	}
	if p.ring != nil {
		t.Error("an empty pipe keeps its storage")
	}
}

// TestPipeEnds: who closes which end how, and what the other then sees.
func TestPipeEnds(t *testing.T) {
	t.Parallel()
	broken, closed := errors.New("broken"), errors.New("closed")
	type outcome struct {
		Read          string
		ReadErr, Werr string
	}
	for name, test := range map[string]struct {
		do   func(*pipe)
		want outcome
	}{
		"end":                  {func(p *pipe) { p.end(io.EOF) }, outcome{"text", "EOF", "use of closed network connection"}},
		"end with an error":    {func(p *pipe) { p.end(broken) }, outcome{"text", "broken", "broken"}},
		"the first end counts": {func(p *pipe) { p.end(io.EOF); p.end(broken) }, outcome{"text", "EOF", "use of closed network connection"}},
		"abandon":              {func(p *pipe) { p.abandon(closed, broken) }, outcome{"", "closed", "broken"}},
		"end, abandon":         {func(p *pipe) { p.end(io.EOF); p.abandon(closed, broken) }, outcome{"", "closed", "use of closed network connection"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p pipe
			p.init()
			p.Write([]byte("text"))
			test.do(&p)
			_, werr := p.Write([]byte("more"))
			read, rerr := io.ReadAll(readerWithEOF{&p})
			got := outcome{string(read), rerr.Error(), werr.Error()}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDeadlineFiresLate: a timer that comes when another deadline was set already
// does nothing.
func TestDeadlineFiresLate(t *testing.T) {
	t.Parallel()
	var p pipe
	p.init()
	for name, at := range map[string]time.Time{"none": {}, "later": time.Now().Add(time.Hour)} {
		p.readDeadline.set(at)
		p.readDeadline.fire()
		if p.readDeadline.passed {
			t.Errorf("%s: has passed", name)
		}
	}
	p.readDeadline.set(time.Time{})
}

// readerWithEOF makes io.ReadAll tell io.EOF, too.
type readerWithEOF struct{ r io.Reader }

func (r readerWithEOF) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err == io.EOF {
		err = errors.New("EOF")
	}
	return n, err
}
