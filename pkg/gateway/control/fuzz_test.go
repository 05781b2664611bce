package control

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// Whatever stands in the claims, nobody gets a name or a group of Kubernetes' or
// zt's own, and no name that breaks a header.
func FuzzMapPerson(f *testing.F) {
	f.Add(`{"email":"alice@example.com","email_verified":true,"groups":["a"]}`)
	f.Add(`{"email":"system:x@y","email_verified":true}`)
	f.Add(`{"email":"a@b","email_verified":true,"groups":{"a":[null]},"_claim_names":[]}`)
	config := v1alpha1.GatewayConfiguration{}
	config.Default()
	f.Fuzz(func(t *testing.T, text string) {
		var claims map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &claims) != nil {
			return
		}
		p, refusal := mapPerson(&config.OIDC, "sub", claims)
		if refusal != nil {
			return
		}
		for _, name := range append([]string{string(p.user.Name)}, p.groups...) {
			lower := strings.ToLower(name)
			if name == "" || strings.HasPrefix(lower, "system:") || strings.HasPrefix(name, "zt:") || strings.ContainsAny(name, "\r\n\x00") {
				t.Errorf("%q became a name", name)
			}
		}
		if strings.Count(string(p.user.Name), "@") != 1 {
			t.Errorf("%q became a person", p.user.Name)
		}
	})
}
