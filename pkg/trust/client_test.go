package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"
)

// TestPinnedGateway: what a pin lets in, and all that it does not.
func TestPinnedGateway(t *testing.T) {
	t.Parallel()
	const name = "gw.example.com"
	own, stranger, web := newAuthority(t, "gateway"), newAuthority(t, "gateway"), newAuthority(t, "WebPKI")
	pin := SPKIPin(own.cert)
	under := func(a *authority, shown ...*x509.Certificate) GetCertificate {
		key := newKey(t)
		template, _ := a.server(t, name)(nil)
		return show(key, append([]*x509.Certificate{a.issue(t, template.Leaf, key.Public())}, shown...)...)
	}
	changed := func(change func(*x509.Certificate)) GetCertificate { return own.server(t, name, change) }
	// A certificate of the pinned key that is no authority's.
	plain := *own.cert
	plain.IsCA = false
	noCA := create(t, &plain, nil, own.key.Public(), own.key)

	const (
		good = iota
		unknown
		clock
		other
	)
	for what, test := range map[string]struct {
		server GetCertificate
		pin    string
		want   int
	}{
		"under the pinned authority":              {own.server(t, name), pin, good},
		"WebPKI, pinned as well":                  {web.server(t, name), pin, good},
		"WebPKI, no pin":                          {web.server(t, name), "", good},
		"WebPKI and the own authority beside it":  {under(web, web.cert, stranger.cert), pin, good},
		"own authority, no pin":                   {own.server(t, name), "", unknown},
		"authority of the same name":              {stranger.server(t, name), pin, unknown},
		"stranger, pinned authority beside it":    {under(stranger, own.cert), pin, unknown},
		"stranger, both authorities beside it":    {under(stranger, stranger.cert, own.cert), pin, unknown},
		"pinned authority not shown":              {under(own), pin, unknown},
		"pinned key, but no authority":            {under(own, noCA), pin, unknown},
		"other name":                              {own.server(t, "tunnel.example.com"), pin, other},
		"expired":                                 {changed(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), pin, clock},
		"not yet valid":                           {changed(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), pin, clock},
		"client certificate":                      {changed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), pin, other},
		"the pinned certificate itself as server": {show(own.key, own.cert), pin, other},
		"pin in capitals is another pin":          {own.server(t, name), "A" + pin[1:], unknown},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			out := meet(t, GatewayServer(test.server), GatewayClient(name, test.pin, web.pool()))
			err := Explain(out.client, name)
			var unknownErr *UnknownAuthorityError
			var clockErr *ClockError
			got := other
			switch {
			case err == nil:
				got = good
			case errors.As(err, &unknownErr):
				got = unknown
			case errors.As(err, &clockErr):
				got = clock
			}
			if got != test.want {
				t.Fatalf("outcome %d, want %d: %v", got, test.want, err)
			}
			if got == unknown && unknownErr.Pinned != (test.pin != "") {
				t.Errorf("pinned: %t", unknownErr.Pinned)
			}
			if got == clock && clockErr.NotYetValid() != (what == "not yet valid") {
				t.Errorf("not yet valid: %t", clockErr.NotYetValid())
			}
		})
	}
}

// TestFingerprint: a stranger's authority is shown with the very value that
// becomes the pin.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	const name = "gw.example.com"
	own := newAuthority(t, "gateway")
	server := GatewayServer(own.server(t, name))
	out := meet(t, server, GatewayClient(name, "", x509.NewCertPool()))
	var unknown *UnknownAuthorityError
	if err := Explain(out.client, name); !errors.As(err, &unknown) {
		t.Fatal(err)
	}
	if unknown.Fingerprint != SPKIPin(own.cert) || unknown.ServerName != name || unknown.Subject != "CN=gateway" {
		t.Errorf("%+v", unknown)
	}
	// Who copies the authority's certificate does not get its fingerprint shown.
	stranger := newAuthority(t, "gateway")
	leaf, _ := stranger.server(t, name)(nil)
	leaf.Certificate = append(leaf.Certificate, own.cert.Raw)
	copied := GatewayServer(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf, nil })
	out = meet(t, copied, GatewayClient(name, "", x509.NewCertPool()))
	var copier *UnknownAuthorityError
	if err := Explain(out.client, name); !errors.As(err, &copier) || copier.Fingerprint != SPKIPin(stranger.cert) {
		t.Errorf("%v, want the fingerprint of who has signed", err)
	}
	if out := meet(t, server, GatewayClient(name, unknown.Fingerprint, x509.NewCertPool())); out.client != nil {
		t.Errorf("with the fingerprint as pin: %v", out.client)
	}
}

// TestPinnedResumption: a resumed session is verified, too.
func TestPinnedResumption(t *testing.T) {
	t.Parallel()
	const name = "gw.example.com"
	own := newAuthority(t, "gateway")
	server := GatewayServer(own.server(t, name))
	good := GatewayClient(name, SPKIPin(own.cert), nil)
	good.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		if out := meet(t, server, good); out.client != nil || out.clientState.DidResume != (i == 1) {
			t.Fatalf("handshake %d: %v, resumed %t", i, out.client, out.clientState.DidResume)
		}
	}
	other := GatewayClient(name, SPKIPin(newAuthority(t, "gateway").cert), nil)
	other.ClientSessionCache = good.ClientSessionCache
	if out := meet(t, server, other); out.client == nil {
		t.Error("a session of before got past the pin")
	}
}
