package stream

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"sync"

	"github.com/kube-zt/zt/pkg/gateway/impersonate"
)

// Buffers: a watch's events are small and its buffer lives as long as it does;
// anything else is copied in larger pieces by turns.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
)

// Proxy sends ordinary requests upstream.
type Proxy struct {
	upstream     *Upstream
	small, large httputil.ReverseProxy
}

// Request is what a Proxy must know of a request beside itself.
type Request struct {
	// Long says that the answer may take for ever and comes in small pieces.
	Long bool
	// Proxied says that an application answers, behind a proxy sub-resource.
	Proxied bool
	// Failed receives what became of a request that upstream did not answer
	// properly, before anything was written to the client.
	Failed func(*Failure)
}

type requestKey struct{}

// NewProxy makes a Proxy toward u.
func NewProxy(u *Upstream) *Proxy {
	p := &Proxy{upstream: u}
	p.small = p.reverse(u.follows, newBuffers(smallBuffer))
	p.large = p.reverse(u.ordinary, newBuffers(largeBuffer))
	return p
}

func (p *Proxy) reverse(way http.RoundTripper, pool httputil.BufferPool) httputil.ReverseProxy {
	return httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      way,
		BufferPool:     pool,
		ModifyResponse: p.modify,
		ErrorHandler:   p.fail,
		// Failures are recorded by the audit and metrics; a client that went away
		// in the middle of an answer is no event.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// Serve sends r, whose context carries the identity, and copies the answer to
// w. Like ReverseProxy it panics with http.ErrAbortHandler when the answer
// breaks off.
func (p *Proxy) Serve(ctx context.Context, w http.ResponseWriter, r *http.Request, request *Request) {
	r = r.WithContext(context.WithValue(ctx, requestKey{}, request))
	if r.ContentLength != 0 {
		r.Body = clientBody{r.Body}
	}
	if request.Long {
		p.small.ServeHTTP(w, r)
	} else {
		p.large.ServeHTTP(w, r)
	}
}

func of(ctx context.Context) *Request {
	request, _ := ctx.Value(requestKey{}).(*Request)
	return request
}

func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL = p.upstream.target(pr.In.URL)
	pr.Out.Host = ""
	header := impersonate.Headers(pr.In.Header)
	accept := acceptEncoding(pr.In.Header["Accept-Encoding"], of(pr.In.Context()).Proxied)
	if accept == nil {
		delete(header, "Accept-Encoding")
	} else {
		header["Accept-Encoding"] = accept
	}
	pr.Out.Header = header
	pr.Out.Trailer = nil
}

// acceptEncoding decides about compression on the leg upstream. A client that
// asks for gzip gets what upstream makes of it. For others net/http asks and
// unpacks, which the absence of the header means. What an application behind a
// proxy sub-resource sends is left alone.
func acceptEncoding(values []string, proxied bool) []string {
	for _, value := range values {
		if containsToken(value, "gzip") {
			return values
		}
	}
	if proxied {
		return identityEncoding
	}
	return nil
}

var identityEncoding = []string{"identity"}

func (p *Proxy) modify(response *http.Response) error {
	return p.upstream.clean(response, of(response.Request.Context()).Proxied)
}

func (p *Proxy) fail(_ http.ResponseWriter, r *http.Request, err error) {
	of(r.Context()).Failed(classify(r.Context(), err))
}

// buffers is a pool of one size. It keeps pointers, since a slice in an
// interface costs an allocation each time.
type buffers struct{ pool sync.Pool }

func newBuffers(size int) *buffers {
	return &buffers{pool: sync.Pool{New: func() any { b := make([]byte, size); return &b }}}
}

func (b *buffers) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(s []byte) { b.pool.Put(&s) }
