package authn

import (
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type fromRequestTest struct {
	header    http.Header
	webSocket bool
	want      Credential
	status    int
}

func (test fromRequestTest) run(t *testing.T) {
	t.Parallel()
	got, refusal := FromRequest(test.header, test.webSocket)
	switch {
	case test.status == 0 && refusal != nil:
		t.Fatalf("refused: %v", refusal)
	case test.status != 0 && refusal == nil:
		t.Fatalf("accepted: %+v", got)
	case test.status != 0:
		if refusal.Status() != test.status {
			t.Errorf("status %d, want %d: %v", refusal.Status(), test.status, refusal)
		}
		return
	}
	if diff := cmp.Diff(test.want, got); diff != "" {
		t.Error(diff)
	}
}

func TestV032(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]fromRequestTest{
		"small letters":       {header: http.Header{"Authorization": {"bearer a"}}, want: Credential{Header: "a"}},
		"any letters":         {header: http.Header{"Authorization": {"bEARER  a "}}, want: Credential{Header: "a"}},
		"two headers":         {header: http.Header{"Authorization": {"Bearer a", "Bearer a"}}, status: 400},
		"two in one":          {header: http.Header{"Authorization": {"Bearer a, Bearer b"}}, status: 400},
		"two without a comma": {header: http.Header{"Authorization": {"Bearer a Bearer b"}}, status: 400},
	} {
		t.Run(name, test.run)
	}
}

func TestFromRequest(t *testing.T) {
	t.Parallel()
	protocol := func(token string) string { return ProtocolPrefix + base64.RawURLEncoding.EncodeToString([]byte(token)) }
	for name, test := range map[string]fromRequestTest{
		"bearer":                     {header: http.Header{"Authorization": {"Bearer a"}}, want: Credential{Header: "a"}},
		"nothing":                    {header: http.Header{}, status: 401},
		"empty":                      {header: http.Header{"Authorization": {"Bearer "}}, status: 401},
		"basic":                      {header: http.Header{"Authorization": {"Basic YTpi"}}, status: 401},
		"protocol":                   {header: http.Header{"Sec-Websocket-Protocol": {"v5.channel.k8s.io, " + protocol("a")}}, webSocket: true, want: Credential{Protocol: "a"}},
		"both":                       {header: http.Header{"Authorization": {"Bearer a"}, "Sec-Websocket-Protocol": {"x", protocol("b")}}, webSocket: true, want: Credential{Header: "a", Protocol: "b"}},
		"protocol without WebSocket": {header: http.Header{"Sec-Websocket-Protocol": {"x", protocol("a")}}, status: 401},
		"two protocols":              {header: http.Header{"Sec-Websocket-Protocol": {"x," + protocol("a"), protocol("b")}}, webSocket: true, status: 401},
		"protocol alone":             {header: http.Header{"Sec-Websocket-Protocol": {protocol("a")}}, webSocket: true, status: 400},
		"protocol not base64url":     {header: http.Header{"Sec-Websocket-Protocol": {"x, " + ProtocolPrefix + "a+/="}}, webSocket: true, status: 401},
	} {
		t.Run(name, test.run)
	}
	got := WithoutToken([]string{"a, " + protocol("x") + " ,b", "c"})
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.AAAA")
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		form, err := parse(raw)
		if err == nil && (form.issuer == "" || form.subject == "" || form.expires.IsZero() || form.issued.IsZero()) {
			t.Errorf("%q passed as %+v", raw, form)
		}
	})
}
