package edge

import (
	"strings"
	"testing"
)

// Whatever a client asks for, what is accepted has exactly one spelling.
func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"prod.zt.test:443", "control:443", "[::1]:443", "a:b:443", "prod.zt.test:0443", "", ":", "[", "x.prod.zt.test:443"} {
		f.Add(seed)
	}
	n := newNames(domain, nil)
	f.Fuzz(func(t *testing.T, authority string) {
		to, refusal := n.parseTarget(authority)
		switch {
		case refusal != nil:
			if code := refusal.Status(); code != 400 && code != 403 {
				t.Errorf("%q: %d", authority, code)
			}
		case to.control:
			if authority != "control:443" {
				t.Errorf("%q is control", authority)
			}
		case authority != string(to.cluster)+"."+domain+":443" || reserved(string(to.cluster)):
			t.Errorf("%q is cluster %q", authority, to.cluster)
		}
	})
}

func FuzzRenewalChain(f *testing.F) {
	f.Add(`{"chain":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"}`)
	f.Add(`{"chain":""}`)
	f.Fuzz(func(t *testing.T, body string) {
		chain, err := renewalChain(strings.NewReader(body))
		if err == nil && (len(chain) == 0 || len(chain) > maxChain) {
			t.Errorf("%d certificates", len(chain))
		}
	})
}
