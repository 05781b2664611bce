package main

import (
	"fmt"
	"io"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// status is the line that says what is going on. It shows on a terminal only,
// overwrites itself and is gone at the end, so that neither a log nor a pipe ever
// holds half of it.
type status struct {
	w       io.Writer
	tty     bool
	verbose bool
	shown   bool
}

const clearLine = "\r\x1b[K"

func (s *status) say(text string) {
	switch {
	case s.verbose:
		fmt.Fprintf(s.w, "zt: %s\n", fault.Escape(text))
	case s.tty:
		fmt.Fprintf(s.w, "%szt: %s…", clearLine, fault.Escape(text))
		s.shown = true
	}
}

// notice is text that the person must read, made by zt itself.
func (s *status) notice(b []byte) {
	s.clear()
	_, _ = s.w.Write(b)
}

func (s *status) clear() {
	if s != nil && s.shown {
		fmt.Fprint(s.w, clearLine)
		s.shown = false
	}
}
