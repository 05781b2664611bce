package impersonate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Transport writes credential and identity on each request and sends it. It is
// the last hand on the header: whatever stands between it and the wire only
// encodes.
type Transport struct {
	// Base sends.
	Base http.RoundTripper
	// Token is the gateway's own credential.
	Token *TokenFile
	// Bare lets requests without an identity pass, for the gateway's questions
	// about its own rights. Never set where a person's request can come.
	Bare bool
}

// ErrCredential says that the API server does not accept the gateway's own
// token. It stands for a 401 that must not reach the person, who can do nothing
// about it.
var ErrCredential = errors.New("the API server refuses the gateway's own credential")

// ErrIdentity says that a request has no identity that could be sent, and was
// not sent.
var ErrIdentity = errors.New("impersonate")

// RoundTrip implements http.RoundTripper. The request's header must be the
// caller's own to give: it is changed.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	credential, err := t.prepare(r)
	if err != nil {
		// A RoundTripper closes the body also when it fails.
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	response, err := t.Base.RoundTrip(r)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	if !ours(r, response) {
		return response, nil
	}
	// The file may have been renewed since it was last looked at. A read can be
	// asked again; of anything else nobody knows here that it did nothing.
	changed := t.Token.reload(credential)
	discard(response)
	if !changed || !repeatable(r) {
		return nil, ErrCredential
	}
	again := r.Clone(r.Context())
	if _, err := t.prepare(again); err != nil {
		return nil, err
	}
	response, err = t.Base.RoundTrip(again)
	if err == nil && response.StatusCode == http.StatusUnauthorized && ours(again, response) {
		discard(response)
		return nil, ErrCredential
	}
	return response, err
}

func (t *Transport) prepare(r *http.Request) ([]string, error) {
	identity, _ := r.Context().Value(identityKey{}).(*Identity)
	if identity != nil || !t.Bare {
		if err := identity.write(r.Header); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrIdentity, err)
		}
	}
	credential, err := t.Token.authorization()
	if err != nil {
		return nil, err
	}
	r.Header["Authorization"] = credential
	return credential, nil
}

// repeatable requests change nothing and have no body that was read already.
func repeatable(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.Body == nil || r.Body == http.NoBody) && r.Header.Get("Upgrade") == ""
}

// ours tells a 401 of the API server from one of an application behind a proxy
// sub-resource, which is the person's to see. The API server's is a Status, in
// JSON where the request did not ask for another form, as browsers do not.
func ours(r *http.Request, response *http.Response) bool {
	identity, _ := r.Context().Value(identityKey{}).(*Identity)
	if identity == nil || !identity.Proxied {
		return true
	}
	head, err := io.ReadAll(io.LimitReader(response.Body, statusLimit))
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), response.Body), response.Body}
	var status metav1.Status
	return err == nil && json.Unmarshal(head, &status) == nil &&
		status.Kind == "Status" && status.Reason == metav1.StatusReasonUnauthorized
}

// statusLimit is more than the API server's 401 ever needs.
const statusLimit = 4 << 10

func discard(response *http.Response) {
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	response.Body.Close()
}
