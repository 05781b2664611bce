package impersonate

import (
	"net/http"
	"strings"

	"github.com/kube-zt/zt/pkg/wire"
)

// CheckInbound refuses requests that bring an identity along. A person may not
// act as somebody else here, so "kubectl --as" is refused as what it is; a name
// that only looks like such a header to a parser that folds characters is
// malformed, and so is one that names no user.
func CheckInbound(h http.Header) *wire.Refusal {
	refused := false
	for name, values := range h {
		if !looksLikeImpersonation(name) {
			continue
		}
		if len(name) < len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			return wire.Refuse(wire.ReasonMalformed, "", "the request has a header that looks like impersonation and is none")
		}
		if strings.EqualFold(name, headerUser) && len(values) == 1 && values[0] == "" {
			return wire.Refuse(wire.ReasonMalformed, "", "the request asks to impersonate nobody")
		}
		refused = true
	}
	if refused {
		return wire.Refuse(wire.ReasonImpersonation, "leave out --as, --as-group and --as-uid",
			"acting as somebody else is not allowed through zt")
	}
	return nil
}

const (
	prefix      = "Impersonate-"
	headerUser  = "Impersonate-User"
	headerUID   = "Impersonate-Uid"
	headerGroup = "Impersonate-Group"
	headerExtra = "Impersonate-Extra-"
	word        = "impersonate"
)

// looksLikeImpersonation compares letters and nothing else, so that
// "Impersonate_User" and "Im-Personate.User" are seen as well.
func looksLikeImpersonation(name string) bool {
	// The first letter sorts out nearly all headers.
	matched := 0
	for i := range len(name) {
		c := name[i] | 0x20
		if c < 'a' || c > 'z' {
			continue
		}
		if c != word[matched] {
			return false
		}
		if matched++; matched == len(word) {
			return true
		}
	}
	return false
}
