package h2conn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf16"

	"github.com/kube-zt/zt/pkg/wire"
)

// HeaderRefusal carries a wire.Refusal as JSON in ASCII with a refused CONNECT.
const HeaderRefusal = "Zt-Refusal"

// maxRefusal bounds what a client reads of HeaderRefusal, in bytes.
const maxRefusal = 8 << 10

// RefusedError is why a stream was not opened.
type RefusedError struct {
	// Status is the HTTP status of the answer.
	Status int
	// Refusal is never nil; if the other side gave none, it says so.
	Refusal *wire.Refusal
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused with status %d: %s", e.Status, e.Refusal.Error())
}

// Refuse answers a CONNECT with a refusal instead of a stream.
func Refuse(w http.ResponseWriter, refusal *wire.Refusal) {
	if text, err := json.Marshal(refusal); err == nil {
		w.Header().Set(HeaderRefusal, ascii(string(text)))
	}
	w.WriteHeader(refusal.Status())
}

// ascii escapes what JSON leaves as it is and a header field must not hold.
func ascii(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r < 0x7f {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// refusedError reads the answer to a CONNECT that was not accepted.
func refusedError(response *http.Response) *RefusedError {
	refusal := new(wire.Refusal)
	text := response.Header.Get(HeaderRefusal)
	if len(text) > maxRefusal || json.Unmarshal([]byte(text), refusal) != nil || refusal.Message == "" {
		refusal = &wire.Refusal{
			Reason:  wire.ReasonInternal,
			Message: fmt.Sprintf("the gateway answered %d %s", response.StatusCode, http.StatusText(response.StatusCode)),
			Code:    response.StatusCode,
		}
	}
	return &RefusedError{Status: response.StatusCode, Refusal: refusal}
}
