package stream

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestForbiddenByAnApplication: only the API server's own answer tells about the
// gateway's account. An application behind a proxy sub-resource could write
// anything into a 403.
func TestForbiddenByAnApplication(t *testing.T) {
	t.Parallel()
	const text = `forbidden: User "system:serviceaccount:zt-system:zt-impersonate" cannot impersonate-on:user-info:list resource "pods"`
	for name, test := range map[string]struct {
		code    int
		proxied bool
		stale   bool
	}{
		"the API server":            {http.StatusForbidden, false, true},
		"an application":            {http.StatusForbidden, true, false},
		"the API server, not a 403": {http.StatusNotFound, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := &http.Response{StatusCode: test.code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text))}
			err := clean(response, test.proxied)
			if (err != nil) != test.stale {
				t.Fatalf("%v, want a refusal: %t", err, test.stale)
			}
			if body, _ := io.ReadAll(response.Body); string(body) != text {
				t.Errorf("the body is now %q", body)
			}
		})
	}
}
