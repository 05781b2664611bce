package impersonate

import (
	"net/http"
	"strings"
)

// endToEnd are the headers that a client may send to the API server. What is
// not here does not go there: credentials, cookies, forwarding headers, method
// overrides, and everything that nobody has thought of yet.
var endToEnd = []string{
	"Accept",
	"Accept-Encoding",
	"Accept-Language",
	"Cache-Control",
	"Content-Encoding",
	"Content-Language",
	"Content-Type",
	"If-Match",
	"If-Modified-Since",
	"If-None-Match",
	"If-Range",
	"If-Unmodified-Since",
	"Kubectl-Command",
	"Kubectl-Session",
	"Pragma",
	"Range",
	"User-Agent",
}

// upgrade are added for an upgraded stream.
var upgrade = []string{
	"Sec-Websocket-Extensions",
	"Sec-Websocket-Key",
	"Sec-Websocket-Version",
	"X-Stream-Protocol-Version",
}

// Headers builds the header set of an ordinary request upstream. The values are
// shared with in.
func Headers(in http.Header) http.Header {
	// Identity, credential and Audit-ID follow: room for all of them.
	out := make(http.Header, 16)
	pick(out, in, endToEnd)
	return out
}

// UpgradeHeaders builds that of a request for an upgrade to protocol. The
// WebSocket protocols come separately, for they may have held a token.
func UpgradeHeaders(in http.Header, protocol string, webSocketProtocols []string) http.Header {
	out := Headers(in)
	pick(out, in, upgrade)
	out["Connection"] = []string{"Upgrade"}
	out["Upgrade"] = []string{protocol}
	if len(webSocketProtocols) > 0 {
		out["Sec-Websocket-Protocol"] = []string{strings.Join(webSocketProtocols, ", ")}
	}
	return out
}

func pick(out, in http.Header, names []string) {
	for _, name := range names {
		if values, ok := in[name]; ok {
			out[name] = values
		}
	}
}
