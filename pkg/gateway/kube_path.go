package gateway

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kube-zt/zt/pkg/wire"
)

// The sub-resources that are streams to something inside the cluster.
func streams(subresource string) bool {
	switch subresource {
	case "exec", "attach", "portforward", "proxy":
		return true
	}
	return false
}

// newRequestInfoFactory knows the prefixes of kube-apiserver's own.
func newRequestInfoFactory() *apirequest.RequestInfoFactory {
	return &apirequest.RequestInfoFactory{
		APIPrefixes:          sets.NewString("api", "apis"),
		GrouplessAPIPrefixes: sets.NewString("api"),
	}
}

// asked reads what a request asks for with Kubernetes' own RequestInfo, on a
// path that has one reading only. What is judged are the very bytes that are
// sent on.
func asked(infos *apirequest.RequestInfoFactory, r *http.Request) (*apirequest.RequestInfo, *wire.Refusal) {
	raw := r.URL.EscapedPath()
	if len(raw) > maxPath {
		return nil, &wire.Refusal{Reason: wire.ReasonTooLarge, Code: http.StatusRequestURITooLong, Message: "the path is too long"}
	}
	free, ok := canonical(raw)
	if !ok {
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the path is not in canonical form")
	}
	if !plainQuery(r.URL.RawQuery) {
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the query is not in canonical form")
	}
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the path cannot be read")
	}
	if free && info.Subresource != "proxy" || info.IsResourceRequest && !free && strings.HasSuffix(raw, "/") {
		return nil, wire.Refuse(wire.ReasonMalformed, "", "the path is not in canonical form")
	}
	return info, nil
}

// plainQuery refuses a query that RequestInfo would read in part and log: pairs
// that do not parse, and options of lists that are not of their type.
func plainQuery(raw string) bool {
	if raw == "" {
		return true
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return false
	}
	for _, name := range [...]string{"limit", "timeoutSeconds"} {
		if v := query[name]; len(v) > 0 {
			if _, err := strconv.ParseInt(v[0], 10, 64); err != nil {
				return false
			}
		}
	}
	if v := query["labelSelector"]; len(v) > 0 {
		if _, err := labels.Parse(v[0]); err != nil {
			return false
		}
	}
	if v := query["fieldSelector"]; len(v) > 0 {
		if _, err := fields.ParseSelector(v[0]); err != nil {
			return false
		}
	}
	return true
}

// canonical reports whether each segment of an escaped path has one reading
// only, and whether the path goes on behind a proxy sub-resource, where it
// belongs to an application and may look like almost anything.
func canonical(raw string) (free, ok bool) {
	if raw == "" || raw[0] != '/' {
		return false, false
	}
	// The segments in front of a proxy sub-resource are at most
	// /apis/GROUP/VERSION/namespaces/NAMESPACE/RESOURCE/NAME/proxy.
	var seen [8]string
	rest := raw[1:]
	for i := 0; ; i++ {
		segment, after, more := strings.Cut(rest, "/")
		if segment == "" && !more {
			return false, true // the root, or a slash at the end
		}
		if !plainSegment(segment) {
			return false, false
		}
		if i < len(seen) {
			seen[i] = segment
			if segment == "proxy" && subresourceAt(seen[:i+1]) {
				return more, staysBelow(after)
			}
		}
		if !more {
			return false, true
		}
		rest = after
	}
}

// staysBelow reports whether a path behind a proxy sub-resource, with its escapes,
// cannot lead out of it. The path is the application's and may look like
// anything, but for what some parser on the way would resolve: dot segments,
// however they and the slashes around them are written, and backslashes, which
// some take for slashes.
func staysBelow(path string) bool {
	// Escapes within escapes are taken off as often as a chain of proxies might.
	for range 3 {
		if strings.Contains(path, `\`) {
			return false
		}
		for segment := range strings.SplitSeq(path, "/") {
			segment, _, _ = strings.Cut(segment, ";") // to some, parameters are not part of it
			if segment == "." || segment == ".." {
				return false
			}
		}
		path = unescape(path)
	}
	return true
}

// unescape takes one layer of escapes off and leaves alone what is none, as the
// most forgiving of parsers would.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	plain := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			high, ok1 := unhex(s[i+1])
			low, ok2 := unhex(s[i+2])
			if ok1 && ok2 {
				plain = append(plain, high<<4|low)
				i += 2
				continue
			}
		}
		plain = append(plain, s[i])
	}
	return string(plain)
}

// subresourceAt reports whether the last of segments stands where RequestInfo
// finds a sub-resource.
func subresourceAt(segments []string) bool {
	var rest []string
	switch segments[0] {
	case "api":
		rest = cut(segments, 2)
	case "apis":
		rest = cut(segments, 3)
	}
	if len(rest) > 2 && rest[0] == "namespaces" && rest[2] != "status" && rest[2] != "finalize" {
		rest = rest[2:]
	}
	return len(rest) == 3 && rest[0] != "proxy" && rest[0] != "watch"
}

func cut(s []string, n int) []string {
	if len(s) < n {
		return nil
	}
	return s[n:]
}

// plainSegment refuses what parsers read differently: empty and dot segments,
// parameters, backslashes, escapes of what needs none (RFC 3986 section 2.3) or
// must not stand in a name, and control characters however they come.
func plainSegment(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' || c == ';' || c < 0x20 || c == 0x7F:
			return false
		case c != '%':
			continue
		}
		if i+2 >= len(s) {
			return false
		}
		high, ok1 := unhex(s[i+1])
		low, ok2 := unhex(s[i+2])
		if !ok1 || !ok2 || !needsEscape(high<<4|low) {
			return false
		}
		i += 2
	}
	return true
}

// needsEscape reports whether a client may write c as an escape.
func needsEscape(c byte) bool {
	switch {
	case c < 0x20, c == 0x7F, c == '/', c == '\\', c == '%', c == ';':
		return false
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
		return false
	}
	return true
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// longRunning reports whether the answer may take for ever.
func longRunning(info *apirequest.RequestInfo) bool {
	return info.Verb == "watch" || info.Verb == "proxy" || info.IsResourceRequest && (streams(info.Subresource) || info.Subresource == "log")
}

// reads reports whether a request changes nothing, by verb and method: a stream
// can do anything, whatever its method.
func reads(info *apirequest.RequestInfo, method string) bool {
	if info.IsResourceRequest {
		return !streams(info.Subresource) && (info.Verb == "get" || info.Verb == "list" || info.Verb == "watch")
	}
	return method == http.MethodGet || method == http.MethodHead
}
