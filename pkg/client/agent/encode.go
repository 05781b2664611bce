package agent

import (
	"strconv"
	"unicode/utf8"
)

// What the exec plugin sends is encoded by hand: reflection's first look at a
// type costs a process that lives two milliseconds a tenth of one. The agent
// decodes with encoding/json, and a test holds the two together.

// append adds r as JSON to b.
func (r *Request) append(b []byte) []byte {
	b = append(b, `{"protocol":`...)
	b = strconv.AppendInt(b, int64(r.Protocol), 10)
	b = appendField(b, "version", r.Version)
	b = appendField(b, "binary", r.Binary)
	b = appendField(b, "op", string(r.Op))
	b = appendField(b, "profile", string(r.Profile))
	b = append(b, `,"parent":`...)
	b = strconv.AppendInt(b, int64(r.Parent), 10)
	b = appendFlag(b, "attended", r.Attended)
	b = appendFlag(b, "display", r.Display)
	b = appendFlag(b, "qr", r.QR)
	b = appendFlag(b, "verbose", r.Verbose)
	if e := r.Environment; e != nil {
		b = append(b, `,"environment":{"httpsProxy":`...)
		b = appendString(b, e.HTTPSProxy)
		b = appendField(b, "noProxy", e.NoProxy)
		b = append(b, '}')
	}
	if len(r.Args) > 0 {
		b = append(b, `,"args":`...)
		b = append(b, r.Args...)
	}
	return append(b, '}')
}

// encode is a as JSON.
func (a CredentialArgs) encode() []byte {
	b := make([]byte, 0, len(a.ExecInfo)+len(a.ExecInfo)/8+64)
	b = append(b, `{"cluster":`...)
	b = appendString(b, string(a.Cluster))
	b = appendField(b, "execInfo", a.ExecInfo)
	return append(b, '}')
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendString(b, value)
}

func appendFlag(b []byte, name string, value bool) []byte {
	if !value {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, `":true`...)
}

// appendString quotes s (RFC 8259, 7). What is not UTF-8 becomes U+FFFD, as with
// encoding/json.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size
			continue
		}
		i++
	}
	return append(b, '"')
}
