package idp

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Paths of the library, and ours for the pages.
const (
	pathDiscovery     = "/.well-known/openid-configuration"
	pathKeys          = "/keys"
	pathAuthorize     = "/authorize"
	pathAuthorizeBack = "/authorize/callback"
	pathToken         = "/oauth/token"
	pathUserinfo      = "/userinfo"
	pathRevoke        = "/revoke"
	pathDeviceGrant   = "/device_authorization"
	pathEndSession    = "/end_session"

	pathLogin         = "/login"
	pathDevice        = "/device"
	pathDeviceConfirm = "/device/confirm"
	pathLoggedOut     = "/logged-out"
)

const (
	grantCode    = string(oidc.GrantTypeCode)
	grantRefresh = string(oidc.GrantTypeRefreshToken)
	grantDevice  = string(oidc.GrantTypeDeviceCode)
)

func endpointOf(path string) Endpoint {
	switch path {
	case pathDiscovery:
		return Discovery
	case pathKeys:
		return JWKS
	case pathAuthorize:
		return Authorize
	case pathToken:
		return Token
	case pathUserinfo:
		return Userinfo
	case pathRevoke:
		return Revocation
	case pathDeviceGrant:
		return DeviceAuthorization
	case pathEndSession:
		return EndSession
	default:
		return Pages // the way back from the pages, /authorize/callback, included
	}
}

// ServeHTTP counts, lets the switches speak, and hands over to the library or
// to the pages. Answers that a switch may change are recorded on the way out.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, f := endpointOf(r.URL.Path), p.currentFaults()
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	grant := ""
	if e == Token {
		grant = r.PostFormValue("grant_type")
	}
	p.countRequest(e, grant)
	if p.misbehave(w, r, e, f) {
		return
	}
	switch {
	case e == Discovery:
		p.serveDiscovery(w, r, f)
	case e == JWKS:
		p.serveKeys(w, r, f)
	case e == Token:
		p.serveToken(w, r, f, grant)
	case e == Authorize, r.URL.Path == pathAuthorizeBack:
		p.serveAuthorize(w, r, f)
	case e == Userinfo && f.UserinfoSubject != "":
		p.edit(w, r, func(doc map[string]any) { doc["sub"] = f.UserinfoSubject })
	case e == Pages:
		p.pages.ServeHTTP(w, r)
	default:
		p.library.ServeHTTP(w, r)
	}
}

func (p *Provider) serveDiscovery(w http.ResponseWriter, r *http.Request, f Faults) {
	if f.RedirectDiscovery != "" {
		http.Redirect(w, r, f.RedirectDiscovery, http.StatusFound)
		return
	}
	p.edit(w, r, func(doc map[string]any) {
		if !f.NoIssuerParameter {
			doc["authorization_response_iss_parameter_supported"] = true // RFC 9207 section 3
		}
		doc["response_types_supported"] = []string{"code"}
		doc["grant_types_supported"] = []string{grantCode, grantRefresh, grantDevice}
		if f.DiscoveryIssuer != "" {
			doc["issuer"] = f.DiscoveryIssuer
		}
		if f.HTTPTokenEndpoint {
			doc["token_endpoint"] = "http" + strings.TrimPrefix(p.issuer, "https") + pathToken
		}
		if f.PlainOnlyPKCE {
			doc["code_challenge_methods_supported"] = []string{"plain"}
		}
		overlay(doc, f.Metadata)
	})
}

func (p *Provider) serveKeys(w http.ResponseWriter, r *http.Request, f Faults) {
	switch f.BadJWKS {
	case EmptyJWKS:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"keys":[]}`))
	case HTMLJWKS:
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<html><body>Please sign in to the proxy.</body></html>`))
	case CutJWKS:
		rec := record(p.library, r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(rec.body.Bytes()[:rec.body.Len()/2])
	default:
		p.library.ServeHTTP(w, r)
	}
}

// serveAuthorize adds the issuer to redirects that go back to the client
// (RFC 9207), which the library does not know of.
func (p *Provider) serveAuthorize(w http.ResponseWriter, r *http.Request, f Faults) {
	rec := record(p.library, r)
	back, err := url.Parse(rec.header.Get("Location"))
	if err == nil && back.Host != "" && back.Scheme == "http" {
		q := back.Query()
		if f.ErrorCallback != "" || f.CallbackError != "" {
			q.Del("code")
			q.Set("error", "access_denied")
			if f.CallbackError != "" {
				q.Set("error", f.CallbackError)
			}
			q.Set("error_description", f.ErrorCallback)
		}
		switch {
		case f.NoIssuerParameter, f.OmitCallbackIssuer:
		case f.CallbackIssuer != "":
			q.Set("iss", f.CallbackIssuer)
		default:
			q.Set("iss", p.issuer)
		}
		back.RawQuery = q.Encode()
		rec.header.Set("Location", back.String())
	}
	rec.replay(w)
}

func (p *Provider) serveToken(w http.ResponseWriter, r *http.Request, f Faults, grant string) {
	if f.TokenError != "" {
		tokenError(w, f.TokenError, f.TokenErrorText)
		return
	}
	if grant == grantDevice {
		if f.DeviceError != "" {
			tokenError(w, f.DeviceError, "")
			return
		}
		if e := p.storage.pace(r.PostFormValue("device_code"), p.opts.DeviceInterval, time.Now(), p.takeSlowDown()); e != nil {
			tokenError(w, string(e.ErrorType), e.Description)
			return
		}
	}
	p.edit(w, r, func(doc map[string]any) {
		if raw, ok := doc["id_token"].(string); ok {
			doc["id_token"] = p.spoil(raw, f)
		}
		if f.OmitIDTokenOnRefresh && grant == grantRefresh {
			delete(doc, "id_token")
		}
		if f.OmitRefreshToken {
			delete(doc, "refresh_token")
		}
	})
}

func tokenError(w http.ResponseWriter, code, text string) {
	doc := map[string]string{"error": code}
	if text != "" {
		doc["error_description"] = text
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(doc)
}

// edit lets change have a JSON answer of the library before it goes out. Errors
// and answers that are not an object pass unchanged.
func (p *Provider) edit(w http.ResponseWriter, r *http.Request, change func(map[string]any)) {
	rec := record(p.library, r)
	var doc map[string]any
	if rec.status == http.StatusOK && json.Unmarshal(rec.body.Bytes(), &doc) == nil {
		change(doc)
		rec.body.Reset()
		_ = json.NewEncoder(&rec.body).Encode(doc)
	}
	rec.replay(w)
}

// recorder keeps an answer until it is decided what becomes of it.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	limit  int // 0: none
}

func record(h http.Handler, r *http.Request) *recorder {
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(rec, r)
	return rec
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }
func (r *recorder) Write(b []byte) (int, error) {
	if r.limit > 0 && r.body.Len()+len(b) > r.limit {
		return 0, errors.New("answer too long")
	}
	return r.body.Write(b)
}

func (r *recorder) replay(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.Header().Set("Content-Length", strconv.Itoa(r.body.Len()))
	w.WriteHeader(r.status)
	_, _ = r.body.WriteTo(w)
}
