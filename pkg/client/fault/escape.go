package fault

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText is the most text of one message that is shown, in bytes. An issuer's
// error page is not worth a screen.
const maxText = 1024

// Escape returns s in one line that no terminal can act on: control characters
// (C0, DEL, C1), format characters such as bidirectional overrides, and bytes
// that are not UTF-8 appear as escapes, and anything beyond 1 KiB is cut.
func Escape(s string) string {
	clean := len(s) <= maxText
	for i := 0; clean && i < len(s); i++ {
		clean = s[i] >= ' ' && s[i] < utf8.RuneSelf && s[i] != 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if b.Len() >= maxText {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// EscapeJSON returns the JSON text b with every character outside printable
// Unicode written as \uXXXX: encoding/json leaves C1 controls and bidirectional
// overrides alone, terminals do not.
func EscapeJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r >= 0x7f && !unicode.IsPrint(r) {
			if r > 0xffff {
				r -= 0x10000
				out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		} else {
			out = append(out, b[i:i+size]...)
		}
		i += size
	}
	return out
}
