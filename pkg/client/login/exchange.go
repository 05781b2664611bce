package login

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// exchange is the transport of one operation: it bounds every answer in length
// and time, and makes up for what the libraries in between lose. x/oauth2 sends
// the device authorisation without a context and leaves its body open, so the
// operation's context ends every request here, and the last byte does too
// (http.Client.Timeout would leave a goroutine behind); and both x/oauth2 and
// go-oidc flatten some errors into text, so the last transport error is kept for
// explain.
type exchange struct {
	base http.RoundTripper
	ctx  context.Context //nolint:containedctx // see above; lives as long as the operation

	mu       sync.Mutex
	failed   error
	deadline time.Time // of the request under way, its redirects included
}

type exchangeKey struct{}

// begin opens an operation: requests made with the returned context go through
// an exchange of their own.
func (c *Client) begin(ctx context.Context) context.Context {
	x := &exchange{base: c.transport, ctx: ctx}
	client := &http.Client{Transport: x, CheckRedirect: checkRedirect}
	return oidc.ClientContext(context.WithValue(ctx, exchangeKey{}, x), client)
}

// cause is the transport error behind err, or err.
func cause(ctx context.Context, err error) error {
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.failed != nil {
		return x.failed
	}
	return err
}

func (x *exchange) note(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = err
}

// start opens a request, or goes on with one that was redirected.
func (x *exchange) start(redirected bool) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = nil
	if !redirected {
		x.deadline = time.Now().Add(requestTimeout)
	}
	return x.deadline
}

func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithDeadline(r.Context(), x.start(r.Response != nil))
	stop := context.AfterFunc(x.ctx, cancel)
	end := func() { stop(); cancel() }
	resp, err := x.base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		end()
		err = &url.Error{Op: r.Method, URL: r.URL.Redacted(), Err: err}
		x.note(err)
		return nil, err
	}
	resp.Body = &body{ReadCloser: resp.Body, left: maxBody, x: x, end: end}
	return resp, nil
}

// body is a response body with an end. It ends its request's context on Close
// and also on its last byte, because x/oauth2 leaves one kind of body open.
type body struct {
	io.ReadCloser
	left int64
	x    *exchange
	end  func()
}

func (b *body) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		n, err = 0, errTooLong
	}
	if err != nil {
		if !errors.Is(err, io.EOF) {
			b.x.note(err)
		}
		b.end()
	}
	return n, err
}

func (b *body) Close() error {
	b.end()
	return b.ReadCloser.Close()
}

// keySet lets explain see why keys could not be fetched, which go-oidc's
// verifier does not pass on.
type keySet struct{ remote oidc.KeySet }

func (k keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.remote.VerifySignature(ctx, jwt)
	var unreachable *url.Error
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok && (errors.As(err, &unreachable) || errors.Is(err, errTooLong)) {
		x.note(err)
	}
	return payload, err
}
