package bind

import (
	"testing"

	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	alice := wire.User{Issuer: "https://idp", Subject: "1", Name: "alice"}
	namesake := wire.User{Issuer: "https://other", Subject: "1", Name: "alice"}
	peer := func(change func(*trust.Identity)) *trust.Identity {
		id := &trust.Identity{User: alice, Session: "sid", Key: "jkt"}
		if change != nil {
			change(id)
		}
		return id
	}
	control := func(change func(*authn.Identity)) *authn.Identity {
		id := &authn.Identity{Kind: authn.Control, User: alice, Session: "sid", Key: "jkt"}
		if change != nil {
			change(id)
		}
		return id
	}
	further := func(user wire.User) *authn.Identity { return &authn.Identity{Kind: authn.Further, User: user} }
	for name, test := range map[string]struct {
		peer *trust.Identity
		id   *authn.Identity
		want wire.Reason
	}{
		"its own stream":              {peer(nil), control(nil), ""},
		"renamed since":               {peer(func(p *trust.Identity) { p.User.Name = "alicia" }), control(nil), ""},
		"no stream":                   {nil, control(nil), wire.ReasonBindingMissing},
		"another key":                 {peer(func(p *trust.Identity) { p.Key = "other" }), control(nil), wire.ReasonBindingMismatch},
		"another session":             {peer(func(p *trust.Identity) { p.Session = "other" }), control(nil), wire.ReasonBindingMismatch},
		"no key on both sides":        {peer(func(p *trust.Identity) { p.Key = "" }), control(func(i *authn.Identity) { i.Key = "" }), wire.ReasonBindingMismatch},
		"no session on both sides":    {peer(func(p *trust.Identity) { p.Session = "" }), control(func(i *authn.Identity) { i.Session = "" }), wire.ReasonBindingMismatch},
		"another person":              {peer(func(p *trust.Identity) { p.User.Subject = "2" }), control(nil), wire.ReasonIdentityMismatch},
		"a namesake elsewhere":        {peer(func(p *trust.Identity) { p.User = namesake }), control(nil), wire.ReasonIdentityMismatch},
		"further issuer, direct":      {nil, further(alice), ""},
		"further issuer, same person": {peer(nil), further(alice), ""},
		"further issuer, namesake":    {peer(nil), further(namesake), wire.ReasonIdentityMismatch},
		"no kind":                     {peer(nil), control(func(i *authn.Identity) { i.Kind = 0 }), wire.ReasonBindingMismatch},
		"no kind, direct":             {nil, control(func(i *authn.Identity) { i.Kind = 0 }), wire.ReasonBindingMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refusal := Check(test.peer, test.id)
			switch {
			case refusal == nil && test.want != "":
				t.Errorf("passed, want %s", test.want)
			case refusal != nil && (refusal.Reason != test.want || refusal.Status() != 403):
				t.Errorf("%+v, want %s", refusal, test.want)
			}
		})
	}
}
