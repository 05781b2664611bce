package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-zt/zt/pkg/wire"
)

// Text from a gateway, an issuer or a cluster is data on a terminal, never
// commands to it.
func TestV077TerminalEscapesAreShownNotObeyed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "pods is forbidden", "pods is forbidden"},
		{"ESC", "a\x1b[2Jb", `a\x1b[2Jb`},
		{"OSC 52", "\x1b]52;c;aGk=\a", `\x1b]52;c;aGk=\x07`},
		{"CR overwrites", "denied\rgranted", `denied\x0dgranted`},
		{"newline", "a\nzt: fine", `a\nzt: fine`},
		{"C1 CSI", "a\u009b2J", `a\x9b2J`},
		{"raw C1 byte", "a\x9b2J", `a\x9b2J`},
		{"bidi override", "a\u202eb", `a\u202eb`},
		{"DEL", "a\x7f", `a\x7f`},
		{"umlauts stay", "für Jürgen", "für Jürgen"},
		{"long", strings.Repeat("x", 5000), strings.Repeat("x", 1024) + "…"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, Escape(tc.in)); diff != "" {
				t.Errorf("Escape (-want +got):\n%s", diff)
			}
			hostile := &wire.Refusal{
				Reason: wire.ReasonPolicyDenied, Message: tc.in, Hint: tc.in, Decision: wire.DecisionID(tc.in),
			}
			var out bytes.Buffer
			f := Of(fmt.Errorf("get token: %w", hostile))
			f.Print(&out)
			fmt.Fprintln(&out, f.Line())
			for i, r := range out.String() {
				if r != '\n' && (r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x202e) {
					t.Fatalf("control character %U at %d of %q", r, i, out.String())
				}
			}
			if lines := strings.Count(out.String(), "\n"); lines != 3 {
				t.Errorf("%d lines, want 3: %q", lines, out.String())
			}
		})
	}
}

func TestEscapeJSONKeepsTheValue(t *testing.T) {
	t.Parallel()
	in := map[string]string{"a": "x\u009b2J\u202e\U000e0001ü\x1b"}
	plain, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	escaped := EscapeJSON(plain)
	if strings.ContainsAny(string(escaped), "\u009b\u202e\U000e0001\x1b") {
		t.Errorf("still there: %q", escaped)
	}
	var out map[string]string
	if err := json.Unmarshal(escaped, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  error
		want *Fault
	}{
		{"nil", nil, nil},
		{"plain", errors.New("boom"), &Fault{What: "boom", Exit: ExitFailed}},
		{"interrupted", fmt.Errorf("login: %w", context.Canceled), &Fault{What: "interrupted", Exit: ExitInterrupted}},
		{
			"unknown device gets the next command", &wire.Refusal{Reason: wire.ReasonDeviceRefused, Message: "device refused", Decision: "d1"},
			&Fault{What: "device refused", Exit: ExitRefused, Reason: wire.ReasonDeviceRefused, Decision: "d1", Hints: []string{"kubectl zt device enroll"}},
		},
		{
			"a hint is not repeated", wire.Refuse(wire.ReasonSessionEnded, "kubectl zt login", "session ended"),
			&Fault{What: "session ended", Exit: ExitLogin, Reason: wire.ReasonSessionEnded, Hints: []string{"kubectl zt login"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, Of(tc.err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every error names what to do next, also one that nobody gave a hint; but who has
// stopped something himself knows.
func TestNothingButAnInterruptionIsWithoutAHint(t *testing.T) {
	t.Parallel()
	faults := map[string]*Fault{
		"plain": Of(errors.New("boom")), "timed out": Of(context.DeadlineExceeded), "a code of tomorrow": New(77, "", "what"),
	}
	for _, exit := range []Exit{ExitFailed, ExitUsage, ExitLogin, ExitRefused, ExitUnreachable, ExitUntrusted} {
		faults[fmt.Sprintf("exit %d", exit)] = New(exit, "", "what")
	}
	for _, r := range []wire.Reason{
		wire.ReasonPolicyDenied, wire.ReasonPolicyDefault, wire.ReasonRevoked, wire.ReasonInternal, wire.ReasonLimit, wire.ReasonStoreFailed,
		wire.ReasonLoginRequired, wire.ReasonClusterDown, "a_reason_of_tomorrow",
	} {
		faults["reason "+string(r)] = Of(wire.Refuse(r, "", "what"))
	}
	for name, f := range faults {
		var out bytes.Buffer
		f.Print(&out)
		if !strings.Contains(out.String(), "\nhint: ") || !strings.HasSuffix(f.Line(), ")") {
			t.Errorf("%s: %q, %q", name, out.String(), f.Line())
		}
	}
	var out bytes.Buffer
	Of(context.Canceled).Print(&out)
	if diff := cmp.Diff("zt: interrupted\n", out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Whom an administrator has locked out, a login would only show the same.
	out.Reset()
	if Of(wire.Refuse(wire.ReasonRevoked, "", "revoked")).Print(&out); strings.Contains(out.String(), "login") {
		t.Error(out.String())
	}
}

func TestHintsAreAtMostTwo(t *testing.T) {
	t.Parallel()
	f := New(ExitFailed, "one", "what").Hint("two").Hint("three").Hint("one")
	if diff := cmp.Diff([]string{"one", "two"}, f.Hints); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		err   error
		first string
	}{
		{"disk full", &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}, "make room on that disk, then do it again: df -h"},
		{"read-only", &os.LinkError{Op: "rename", Old: "/x", New: "/y", Err: syscall.EROFS}, "go elsewhere"},
		{"not allowed", &fs.PathError{Op: "open", Path: "/x", Err: syscall.EACCES}, "go elsewhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := File(tc.err, "go elsewhere", "%s cannot be written", "/home/file")
			if f.Hints[0] != tc.first || !strings.HasPrefix(f.What, "/home/file cannot be written: ") || strings.Contains(f.What, "/x") {
				t.Errorf("%q %q", f.What, f.Hints)
			}
		})
	}
}
