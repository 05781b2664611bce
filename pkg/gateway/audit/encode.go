package audit

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

// appendJSON appends r exactly as encoding/json would write it, without HTML
// escapes (TestAppendJSON compares the two). It exists because every request
// pays for it: reflection over forty fields costs more than the write(2) of the
// line.
func (r *Record) appendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = always(b, "kind", string(r.Kind))
	b = field(b, "id", string(r.ID))
	b = field(b, "event", string(r.Event))

	b = user(b, "user", r.User)
	b = user(b, "claimed", r.Claimed)
	b = field(b, "device", string(r.Device))
	b = field(b, "tier", r.Tier)
	b = field(b, "session", string(r.Session))
	if len(r.Roles) > 0 {
		b = append(b, `,"roles":[`...)
		for i, role := range r.Roles {
			if i > 0 {
				b = append(b, ',')
			}
			b = quote(b, string(role))
		}
		b = append(b, ']')
	}
	b = field(b, "source", r.Source)
	b = field(b, "regime", r.Regime)
	b = field(b, "userAgent", r.UserAgent)

	b = field(b, "cluster", string(r.Cluster))
	b = field(b, "method", r.Method)
	b = field(b, "path", r.Path)
	b = field(b, "verb", r.Verb)
	b = field(b, "apiGroup", r.APIGroup)
	b = field(b, "resource", r.Resource)
	b = field(b, "subresource", r.Subresource)
	b = field(b, "namespace", r.Namespace)
	b = field(b, "name", r.Name)
	b = field(b, "upgrade", r.Upgrade)
	b = field(b, "command", r.Command)
	b = field(b, "commandHash", r.CommandHash)

	b = field(b, "decision", string(r.Decision))
	b = field(b, "reason", string(r.Reason))
	b = field(b, "message", r.Message)
	b = field(b, "policy", r.Policy)
	b = number(b, "rule", int64(r.Rule))
	b = field(b, "version", r.Version)
	if r.WouldDeny {
		b = append(b, `,"wouldDeny":true`...)
	}

	b = number(b, "code", int64(r.Code))
	b = number(b, "bytesIn", r.BytesIn)
	b = number(b, "bytesOut", r.BytesOut)
	if r.DurationMS != 0 {
		b = append(b, `,"durationMs":`...)
		b = strconv.AppendFloat(b, r.DurationMS, 'f', -1, 64)
	}
	b = field(b, "error", r.Error)
	if len(r.Detail) > 0 {
		b = append(b, `,"detail":{`...)
		for i, name := range slices.Sorted(maps.Keys(r.Detail)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = quote(b, name)
			b = append(b, ':')
			b = quote(b, r.Detail[name])
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func field(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return always(b, name, value)
}

func always(b []byte, name, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return quote(b, value)
}

func number(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return strconv.AppendInt(b, n, 10)
}

func user(b []byte, name string, u *wire.User) []byte {
	if u == nil {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, `":{"iss":`...)
	b = quote(b, string(u.Issuer))
	b = append(b, `,"sub":`...)
	b = quote(b, string(u.Subject))
	b = append(b, `,"name":`...)
	b = quote(b, string(u.Name))
	return append(b, '}')
}

// quote leaves everything but plain ASCII to encoding/json.
func quote(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7F || c == '"' || c == '\\' {
			return quoteSlowly(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func quoteSlowly(b []byte, s string) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string cannot fail
	return append(b, bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))...)
}
