package trust

import (
	"encoding/pem"
	"strings"
	"testing"
)

func TestParseCertificates(t *testing.T) {
	t.Parallel()
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	certificate := block("CERTIFICATE", newAuthority(t, "some authority").cert.Raw)
	for name, test := range map[string]struct {
		text string
		want int
		err  string
	}{
		"one":                    {certificate, 1, ""},
		"two, and comments":      {"# first\n" + certificate + "# second\n" + certificate + "the end", 2, ""},
		"nothing":                {"", 0, "no PEM certificate"},
		"text alone":             {"not PEM at all", 0, "no PEM certificate"},
		"a key":                  {certificate + block("PRIVATE KEY", []byte("x")), 0, "PRIVATE KEY"},
		"a type without end":     {block(strings.Repeat("X", 1000), nil), 0, `of type "` + strings.Repeat("X", 40) + `"`},
		"the second is no X.509": {certificate + block("CERTIFICATE", []byte("x")), 0, "certificate 2 cannot be read"},
	} {
		certs, err := ParseCertificates([]byte(test.text))
		if len(certs) != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %d certificates, %v", name, len(certs), err)
		}
	}
}
