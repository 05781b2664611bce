package gateway

import (
	"net/http"
	"strings"
)

// sized reports whether r says its length at most once and as a number. net/http
// sees to that in HTTP/1.1; in HTTP/2 it takes anything else for a length of 0, and
// the request would go on without its body.
func sized(r *http.Request) bool {
	values := r.Header["Content-Length"]
	return len(values) == 0 || len(values) == 1 && values[0] != "" && strings.Trim(values[0], "0123456789") == ""
}
