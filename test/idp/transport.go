package idp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Transport reaches the provider without a network: the request is served in
// the caller's goroutine. In a testing/synctest bubble the provider then lives
// on the bubble's clock, and hours pass in no time.
func (p *Provider) Transport() http.RoundTripper { return inProcess{p} }

type inProcess struct{ p *Provider }

// maxInProcess ends bodies that have no end; it is more than any client reads.
const maxInProcess = 8 << 20

func (t inProcess) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if host := "https://" + r.URL.Host; r.URL.Scheme+"://"+r.URL.Host != t.p.issuer {
		return nil, fmt.Errorf("in process: %s is not %s", host, t.p.issuer)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	served := r.Clone(r.Context())
	served.RequestURI, served.Host, served.RemoteAddr = r.URL.RequestURI(), r.URL.Host, "127.0.0.1:1"
	if served.Body == nil {
		served.Body = http.NoBody
	}
	defer func() {
		if cause := recover(); cause != nil {
			if cause != http.ErrAbortHandler {
				panic(cause)
			}
			if err = r.Context().Err(); err == nil {
				err = errors.New("in process: connection reset")
			}
		}
		_ = served.Body.Close()
	}()
	rec := &recorder{header: http.Header{}, status: http.StatusOK, limit: maxInProcess}
	t.p.ServeHTTP(rec, served)
	rec.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	return &http.Response{
		Status: http.StatusText(rec.status), StatusCode: rec.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: rec.header, Body: io.NopCloser(bytes.NewReader(rec.body.Bytes())),
		ContentLength: int64(rec.body.Len()), Request: r,
	}, nil
}
