package gateway

import (
	"encoding/json"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/wire"
)

// answer is the client's side of a request. It counts, keeps interim responses
// of upstream back, and knows where a watch may be told why it ends.
type answer struct {
	http.ResponseWriter
	code  int
	bytes int64
	// watch says that events follow, and events is their form once that is known.
	watch  bool
	events events
	// refusal is what was answered, for the record.
	refusal *wire.Refusal
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(code int) {
	if code < http.StatusOK || a.code != 0 {
		return
	}
	a.code = code
	if a.watch && code == http.StatusOK {
		a.events = eventsOf(a.Header())
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.code == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	if a.events != nil {
		a.events.passed(b[:n])
	}
	return n, err
}

// refuse answers request with r, in the form that stock clients print. Nothing
// must have been written.
func (a *answer) refuse(r *wire.Refusal, request *http.Request) {
	text := message(r)
	code := r.Status()
	h := a.Header()
	clear(h)
	h.Set(wire.HeaderDecision, string(r.Decision))
	h.Set("Audit-Id", string(r.Decision))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if request.ProtoMajor == 1 && request.ContentLength != 0 {
		// net/http would wait for a body that nobody is going to read.
		h.Set("Connection", "close")
	}
	if code == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	if discovery(request.URL.Path) {
		// client-go throws a Status away there, and of some codes the text too.
		if code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout {
			code = http.StatusBadGateway
		}
		h.Set("Content-Type", "text/plain; charset=utf-8")
		a.WriteHeader(code)
		_, _ = a.Write([]byte(text))
		return
	}
	body, err := json.Marshal(status(r, code, text))
	if err != nil {
		body = []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":500}`)
	}
	h.Set("Content-Type", "application/json")
	a.WriteHeader(code)
	_, _ = a.Write(append(body, '\n'))
}

// message is the one line that a person reads: what, the next command, and how
// to find the decision again.
func message(r *wire.Refusal) string {
	text := "zt: " + r.Error()
	if r.Decision != "" {
		text += " [decision " + string(r.Decision) + "]"
	}
	return text
}

func status(r *wire.Refusal, code int, text string) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Message:  text,
		Reason:   statusReason(code),
		Details: &metav1.StatusDetails{
			Causes: []metav1.StatusCause{{Type: metav1.CauseType("zt:" + r.Reason), Message: r.Message, Field: r.Policy}},
		},
		Code: int32(code),
	}
}

// statusReason is Kubernetes' word for an HTTP status.
func statusReason(code int) metav1.StatusReason {
	switch code {
	case http.StatusBadRequest:
		return metav1.StatusReasonBadRequest
	case http.StatusUnauthorized:
		return metav1.StatusReasonUnauthorized
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusMethodNotAllowed:
		return metav1.StatusReasonMethodNotAllowed
	case http.StatusRequestEntityTooLarge:
		return metav1.StatusReasonRequestEntityTooLarge
	case http.StatusTooManyRequests:
		return metav1.StatusReasonTooManyRequests
	case http.StatusServiceUnavailable:
		return metav1.StatusReasonServiceUnavailable
	case http.StatusGatewayTimeout:
		return metav1.StatusReasonTimeout
	case http.StatusInternalServerError, http.StatusBadGateway:
		return metav1.StatusReasonInternalError
	default:
		return metav1.StatusReasonUnknown
	}
}

// discovery paths are those that client-go reads as raw bytes.
func discovery(path string) bool {
	path = strings.TrimSuffix(path, "/")
	switch path {
	case "/api", "/apis", "/version":
		return true
	}
	return path == "/openapi" || strings.HasPrefix(path, "/openapi/")
}
