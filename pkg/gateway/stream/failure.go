package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
)

// ErrTimeout is the cause with which a request is ended that has had its time.
var ErrTimeout = errors.New("no answer in time")

// ErrGone says that the client went away: nobody is left to be answered.
var ErrGone = errors.New("the client went away")

// Kinds of failure of the leg upstream, for a metric.
const (
	KindDial       = "dial"
	KindTimeout    = "timeout"
	KindAborted    = "aborted"
	KindCredential = "credential"
	KindRedirect   = "redirect"
	KindUpgrade    = "upgrade"
	KindRBAC       = "rbac"
)

// Failure is what became of a request that upstream did not answer properly.
type Failure struct {
	Refusal *wire.Refusal
	Kind    string // empty where upstream is not to blame
	Err     error  // for the record; its text does not go to the client
}

func (f *Failure) Error() string { return f.Refusal.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

const askAdmin = "tell your administrator"

// classify turns an error of a round trip into what the client is told. The
// order matters: who ended the request decides before how it ended.
func classify(ctx context.Context, err error) *Failure {
	var known *Failure
	if errors.As(err, &known) {
		return known
	}
	cause := context.Cause(ctx)
	var refusal *wire.Refusal
	var tooLarge *http.MaxBytesError
	var body *bodyError
	var dial *net.OpError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(cause, &refusal):
		return &Failure{Refusal: refusal, Err: refusal}
	case errors.Is(cause, ErrTimeout):
		return failure(KindTimeout, err, wire.ReasonUpstreamTimeout, "try again", "the cluster's API server did not answer in time")
	case errors.As(err, &tooLarge):
		return &Failure{Refusal: TooLarge(tooLarge.Limit), Err: err}
	case ctx.Err() != nil:
		return &Failure{Refusal: &wire.Refusal{Reason: wire.ReasonUpstream, Code: statusClientGone, Message: "the client went away"}, Err: ErrGone}
	case errors.As(err, &body):
		return failure("", err, wire.ReasonMalformed, "", "the request's body cannot be read as its head announces it")
	case errors.Is(err, impersonate.ErrIdentity):
		return failure("", err, wire.ReasonInternal, askAdmin, "the gateway could not say in whose name to ask")
	case errors.Is(err, impersonate.ErrCredential):
		f := failure(KindCredential, err, wire.ReasonUpstream, askAdmin, "the cluster does not accept the gateway's own credential at the moment")
		f.Refusal.Code = http.StatusServiceUnavailable
		return f
	case errors.As(err, &dns), errors.As(err, &dial) && dial.Op == "dial" && !dial.Timeout():
		return failure(KindDial, err, wire.ReasonUpstream, "try again in a minute", "the cluster's API server cannot be reached")
	case errors.As(err, &timeout) && timeout.Timeout():
		return failure(KindTimeout, err, wire.ReasonUpstreamTimeout, "try again", "the cluster's API server cannot be reached in time")
	default:
		return failure(KindAborted, err, wire.ReasonUpstream, "try again", "the connection to the cluster's API server failed")
	}
}

// statusClientGone stands in records for answers that nobody received.
const statusClientGone = 499

func failure(kind string, err error, reason wire.Reason, hint, message string) *Failure {
	return &Failure{Refusal: wire.Refuse(reason, hint, "%s", message), Kind: kind, Err: err}
}

// bodyError is a failure of reading the client's body: upstream is not to blame.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the request's body: " + e.err.Error() }

func (e *bodyError) Unwrap() error { return e.err }

// clientBody marks what goes wrong with it as the client's.
type clientBody struct{ io.ReadCloser }

func (b clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

// TooLarge refuses a body of more than limit bytes.
func TooLarge(limit int64) *wire.Refusal {
	return wire.Refuse(wire.ReasonTooLarge, "", "the request's body is over the limit of %d MiB", limit>>20)
}
