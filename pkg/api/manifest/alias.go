package manifest

import (
	"bytes"
	"encoding/json"
)

// MayAlias reports whether body, as YAML, may say something by a name that it gave
// it before: written out, a few bytes become more than any machine has. Kubernetes'
// decoder bounds how many aliases there are, and not how long is what each stands
// for; whoever hands it YAML of a stranger asks here first. Both signs are needed
// for one, in any encoding, and neither means anything within the quotes of JSON.
func MayAlias(body []byte) bool {
	return bytes.IndexByte(body, '&') >= 0 && bytes.IndexByte(body, '*') >= 0 && !json.Valid(body)
}
