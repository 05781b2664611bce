package control

import (
	"slices"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/wire"
)

// TestRevokedRoleInToken: a role that was taken gives nothing in a new token, and
// the token says which it was, so that what the role denied stays denied.
func TestRevokedRoleInToken(t *testing.T) {
	t.Parallel()
	r := start(t, rigOptions{})
	r.load("objects.yaml", strings.Replace(objects, "groups: [employees]", "groups: [employees, all-admins]", 1))
	l := r.laptop().login("carol")
	client := l.stream()
	claims := func() wire.TokenClaims {
		t.Helper()
		token, refusal := l.mint(client, "prod")
		if refusal != nil {
			t.Fatal(refusal)
		}
		return r.claims(token)
	}
	before := claims()
	if !slices.Equal(before.Roles, []wire.Role{"admins", "devs"}) || before.Revoked != nil {
		t.Fatalf("from the start: %v, revoked %v", before.Roles, before.Revoked)
	}
	r.revoke(v1alpha1.RevocationSpec{Role: "admins"})
	eventually(t, "the role is revoked", func() bool { return len(r.registry.Removed(r.factsOfClaims(l, before))) > 0 })
	if after := claims(); !slices.Equal(after.Roles, []wire.Role{"devs"}) || !slices.Equal(after.Revoked, []wire.Role{"admins"}) {
		t.Errorf("%v, revoked %v", after.Roles, after.Revoked)
	}
}
