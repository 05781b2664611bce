// Package fault is what a person at the laptop is told when something went
// wrong: one sentence, at most two next commands and an exit code. Every error
// that reaches a terminal, a reason phrase or an exec plugin's stderr passes
// through here, so this is also where text from the other side of a wire is made
// harmless: no control character, no bidirectional override and no text longer
// than 1 KiB gets past Escape (V077).
package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/kube-zt/zt/pkg/wire"
)

// Exit is the exit code of kubectl-zt. The codes are part of its interface.
type Exit int

// The exit codes. `credential` alone always exits with 0 or 1, because client-go
// shows the number to people who cannot know this table.
const (
	ExitFailed      Exit = 1   // anything that has no code of its own
	ExitUsage       Exit = 2   // the command line is wrong
	ExitLogin       Exit = 3   // nobody is logged in, or the session has ended
	ExitRefused     Exit = 4   // the gateway or the issuer said no
	ExitUnreachable Exit = 5   // gateway, issuer or cluster did not answer
	ExitUntrusted   Exit = 6   // unknown gateway, changed pin, unsafe file
	ExitInterrupted Exit = 130 // the person stopped it
)

// CheckNetwork is the next command where something did not answer.
const CheckNetwork = "check the network, then: kubectl zt status"

// maxHints is how many next commands a person is offered: more is a manual.
const maxHints = 2

// Fault is an error with its next commands. It crosses the agent's socket, so
// all of it is plain data. What and Hints are already escaped when made by this
// package.
type Fault struct {
	What     string          `json:"what"`
	Hints    []string        `json:"hints,omitempty"`
	Exit     Exit            `json:"exit"`
	Reason   wire.Reason     `json:"reason,omitempty"`
	Decision wire.DecisionID `json:"decision,omitempty"`
	// Told is set when the same parent process was told the same thing before:
	// client-go runs a failing plugin up to five times.
	Told bool `json:"told,omitempty"`
}

// New makes a Fault. An empty hint is none.
func New(exit Exit, hint, format string, args ...any) *Fault {
	f := &Fault{What: Escape(fmt.Sprintf(format, args...)), Exit: exit}
	return f.Hint(hint)
}

// Hint returns f with one more next command, unless it is empty, known or more
// than a person should be given.
func (f *Fault) Hint(hint string) *Fault {
	hint = Escape(hint)
	if hint == "" || len(f.Hints) >= maxHints {
		return f
	}
	for _, h := range f.Hints {
		if h == hint {
			return f
		}
	}
	f.Hints = append(f.Hints, hint)
	return f
}

// Because returns f with the wire reason r.
func (f *Fault) Because(r wire.Reason) *Fault {
	f.Reason = r
	return f
}

// Error is the sentence without its hints.
func (f *Fault) Error() string { return f.What }

// Line is the Fault in one line of ASCII, for an HTTP reason phrase: stock
// clients print it and nothing else of a refused CONNECT.
func (f *Fault) Line() string {
	s := "zt: " + f.What
	if hints := f.next(); len(hints) > 0 {
		s += " (" + hints[0] + ")"
	}
	return strings.Map(func(r rune) rune {
		if r > '~' || r < ' ' {
			return '?'
		}
		return r
	}, s)
}

// next is the next commands: a Fault's own, or what its code alone suggests. Only
// who stopped something himself needs none.
func (f *Fault) next() []string {
	if len(f.Hints) > 0 {
		return f.Hints
	}
	switch f.Exit {
	case ExitInterrupted:
		return nil
	case ExitUsage:
		return []string{"kubectl zt --help"}
	case ExitLogin:
		return []string{"kubectl zt login"}
	case ExitRefused, ExitUntrusted:
		return []string{"ask the gateway's administrator"}
	case ExitUnreachable:
		return []string{CheckNetwork}
	default:
		return []string{"kubectl zt status"}
	}
}

// Print writes f the way every verb does: "zt: what", then "hint: next command".
func (f *Fault) Print(w io.Writer) {
	if f.Told {
		return
	}
	what := f.What
	if f.Decision != "" {
		what += " [" + Escape(string(f.Decision)) + "]"
	}
	fmt.Fprintf(w, "zt: %s\n", what)
	for _, h := range f.next() {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}

// Of turns any error into a Fault: one that is there already, a refusal from
// the wire, an interruption, or a plain failure. Nil stays nil.
func Of(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	var r *wire.Refusal
	if errors.As(err, &r) {
		return refused(r)
	}
	if errors.Is(err, context.Canceled) {
		return New(ExitInterrupted, "", "interrupted")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return New(ExitUnreachable, "", "no answer in time: %v", err)
	}
	return New(ExitFailed, "", "%v", err)
}

// refused keeps the gateway's own sentence: it knows the policy and the missing
// condition, the laptop does not.
func refused(r *wire.Refusal) *Fault {
	f := New(exitOf(r.Reason), r.Hint, "%s", r.Message)
	f.Reason, f.Decision = r.Reason, r.Decision
	switch r.Reason {
	case wire.ReasonDeviceUnknown, wire.ReasonDeviceRefused:
		if r.Hint == "" { // the mute answer to a stranger
			f = f.Hint("kubectl zt device enroll")
		}
	case wire.ReasonSessionEnded, wire.ReasonLoginRequired:
		f = f.Hint("kubectl zt login")
	case wire.ReasonClusterUnknown, wire.ReasonClusterDisabled:
		f = f.Hint("kubectl zt clusters")
	}
	return f
}

func exitOf(r wire.Reason) Exit {
	switch r {
	case wire.ReasonLoginRequired, wire.ReasonSessionEnded, wire.ReasonTokenExpired, wire.ReasonUnauthenticated:
		return ExitLogin
	case wire.ReasonIdPUnreachable, wire.ReasonClusterDown, wire.ReasonUpstream, wire.ReasonUpstreamTimeout,
		wire.ReasonShuttingDown, wire.ReasonStoreFailed, wire.ReasonAuditFailed:
		return ExitUnreachable
	case wire.ReasonInternal, wire.ReasonMalformed:
		return ExitFailed
	default:
		return ExitRefused
	}
}

// File makes a Fault of a file that could not be read or written. A full disk and a
// read-only one are cured otherwise than by elsewhere, which names another place.
func File(err error, elsewhere, format string, args ...any) *Fault {
	f := New(ExitFailed, "", "%s: %v", fmt.Sprintf(format, args...), cause(err))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f = f.Hint("make room on that disk, then do it again: df -h")
	}
	return f.Hint(elsewhere)
}

// cause is what the system said, without the path that the sentence names already.
func cause(err error) error {
	var (
		path *fs.PathError
		link *os.LinkError
	)
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// Panic describes a recovered value for a log. Only run-time errors, whose text
// the Go runtime wrote, are shown: anything else may be made of somebody's data.
func Panic(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return Escape(err.Error())
	}
	return fmt.Sprintf("%T", v)
}
