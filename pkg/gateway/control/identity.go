package control

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/wire"
)

// zt's own prefix of names in Kubernetes, reserved whatever is configured.
const reservedPrefix = "zt:"

// maxGroups bounds the groups of one person. They stay in control's state and
// never travel to a cluster, so there is no reason to cut or to refuse early.
const maxGroups = 20_000

// person is who logged in, as the configured claims say.
type person struct {
	user wire.User
	// groups are the issuer's. groupsUnknown: the issuer only says where to ask
	// for them, and nobody asks; roles that name groups then do not match.
	groups        []string
	groupsUnknown bool
	amr           []string
	authTime      time.Time
}

// person is whom verified claims are about. Roles match names and groups whoever
// the issuer is, so none may be taken that a further issuer could give.
func (c *Control) person(subject wire.Subject, claims map[string]json.RawMessage) (person, *wire.Refusal) {
	p, refusal := mapPerson(&c.config().OIDC, subject, claims)
	if refusal != nil {
		return p, refusal
	}
	const why = "could be taken for one of another issuer's that this gateway accepts"
	if c.o.Foreign(string(p.user.Name)) {
		return p, refuseReserved("user name", why)
	}
	if slices.ContainsFunc(p.groups, c.o.Foreign) {
		return p, refuseReserved("group", why)
	}
	return p, nil
}

// mapPerson reads username and groups out of verified claims.
func mapPerson(o *v1alpha1.OIDC, subject wire.Subject, claims map[string]json.RawMessage) (person, *wire.Refusal) {
	p := person{user: wire.User{Issuer: wire.Issuer(o.Issuer), Subject: subject}}
	if err := requiredClaims(o.RequiredClaims, claims); err != nil {
		return p, refuseClaims(err)
	}
	name, err := username(o.UsernameClaim, claims)
	if err != nil {
		return p, refuseClaims(err)
	}
	if why := authn.Reserved(name, reservedPrefix, o.UsernamePrefix); why != "" {
		return p, refuseReserved("user name", why)
	}
	p.user.Name = wire.Username(name)
	if p.groups, p.groupsUnknown, err = groups(o.GroupsClaim, claims); err != nil {
		return p, refuseClaims(err)
	}
	for _, group := range p.groups {
		if why := authn.Reserved(group, reservedPrefix); why != "" {
			return p, refuseReserved("group", why)
		}
	}
	// amr and auth_time tell policy and people how the login was; a token
	// without them, or with something else there, is a token without them.
	_ = json.Unmarshal(claims["amr"], &p.amr)
	var authTime int64
	if json.Unmarshal(claims["auth_time"], &authTime) == nil && authTime > 0 {
		p.authTime = time.Unix(authTime, 0).UTC()
	}
	return p, nil
}

func refuseClaims(err error) *wire.Refusal {
	return wire.Refuse(wire.ReasonTokenInvalid, "ask your administrator", "the identity provider's answer cannot be used: %v", err)
}

func refuseReserved(what, why string) *wire.Refusal {
	return wire.Refuse(wire.ReasonReservedIdentity, "ask your administrator to map another claim", "the %s that the identity provider gives %s", what, why)
}

// requiredClaims demands text that is equal, or a list that holds it.
func requiredClaims(required map[string]string, claims map[string]json.RawMessage) error {
	for name, want := range required {
		var one string
		var many []string
		switch {
		case json.Unmarshal(claims[name], &one) == nil && one == want && claims[name] != nil:
		case json.Unmarshal(claims[name], &many) == nil && slices.Contains(many, want):
		default:
			return errors.New("a claim that this gateway requires is missing or has another value")
		}
	}
	return nil
}

// username reads the name claim. An e-mail address is a name only when the
// issuer says, with a true that is no text, that it has verified it.
func username(claim string, claims map[string]json.RawMessage) (string, error) {
	var name string
	if raw := claims[claim]; raw == nil || json.Unmarshal(raw, &name) != nil || string(raw) == "null" {
		return "", errors.New("there is no user name in it")
	}
	if claim != "email" {
		return name, nil
	}
	if string(claims["email_verified"]) != "true" {
		return "", errors.New("the e-mail address is not verified")
	}
	if local, domain, ok := strings.Cut(name, "@"); !ok || local == "" || domain == "" || strings.Contains(domain, "@") {
		return "", errors.New("the e-mail address is not of the form NAME@DOMAIN")
	}
	return name, nil
}

// groups reads the groups claim: text is one group, a list of texts is that
// many, null and absence are none, and anything else is an error. Names of
// distributed claims (OpenID Connect Core 5.6.2) are not followed.
func groups(claim string, claims map[string]json.RawMessage) (list []string, unknown bool, err error) {
	var elsewhere map[string]json.RawMessage
	if raw := claims["_claim_names"]; raw != nil {
		if json.Unmarshal(raw, &elsewhere) != nil {
			return nil, true, errors.New("the names of distributed claims cannot be read")
		}
		if _, ok := elsewhere[claim]; ok {
			return nil, true, nil
		}
	}
	raw := claims[claim]
	if raw == nil || string(raw) == "null" {
		return nil, false, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, false, nil
	}
	// Pointers tell a null inside the list from an empty name.
	var many []*string
	if json.Unmarshal(raw, &many) != nil {
		return nil, false, errors.New("the groups are neither text nor a list of texts")
	}
	if len(many) > maxGroups {
		return nil, false, errors.New("there are too many groups in it")
	}
	list = make([]string, len(many))
	for i, group := range many {
		if group == nil {
			return nil, false, errors.New("the groups are neither text nor a list of texts")
		}
		list[i] = *group
	}
	return list, false, nil
}
