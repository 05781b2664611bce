package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Epoch orders the states on which something was decided. Its text form is
// GENERATION.SEQUENCE; a restore raises the generation, so it never goes back.
type Epoch struct {
	Generation uint64
	Sequence   uint64
}

// Less reports whether e is older than o.
func (e Epoch) Less(o Epoch) bool {
	if e.Generation != o.Generation {
		return e.Generation < o.Generation
	}
	return e.Sequence < o.Sequence
}

func (e Epoch) String() string { return fmt.Sprintf("%d.%d", e.Generation, e.Sequence) }

// MarshalText implements encoding.TextMarshaler.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Epoch) UnmarshalText(text []byte) error {
	generation, sequence, ok := strings.Cut(string(text), ".")
	g, err1 := strconv.ParseUint(generation, 10, 64)
	s, err2 := strconv.ParseUint(sequence, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return fmt.Errorf("epoch %q: want GENERATION.SEQUENCE", text)
	}
	*e = Epoch{Generation: g, Sequence: s}
	return nil
}
