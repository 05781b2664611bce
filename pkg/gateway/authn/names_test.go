package authn

import (
	"fmt"
	"testing"
)

// Names that further issuers may give are known before anybody comes with one.
func TestMayName(t *testing.T) {
	t.Parallel()
	const (
		users  = `claimMappings: {username: {claim: sub, prefix: "ci:"}}`
		both   = `claimMappings: {username: {claim: sub, prefix: "ci:"}, groups: {claim: groups, prefix: "team:"}}`
		byCEL  = `claimMappings: {username: {expression: "'ci:' + claims.sub"}}`
		groups = `claimMappings: {username: {claim: sub, prefix: "ci:"}, groups: {expression: "claims.groups"}}`
	)
	tests := []struct {
		mapping, name string
		want          bool
	}{
		{users, "ci:bot", true},
		{users, "ci:", true},
		{users, "ci", false},
		{users, "cibot", false},
		{users, "team:a", false},
		{users, "alice@example.com", false},
		{both, "team:a", true},
		{both, "ci:bot", true},
		{both, "a:team:", false},
		{byCEL, "any:thing", true},
		{byCEL, "alice@example.com", false},
		{byCEL, ":alice", false}, // no further issuer's: it has no prefix
		{groups, "team:a", true},
		{groups, "employees", false},
	}
	for _, tt := range tests {
		t.Run(tt.mapping+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			config := fmt.Sprintf("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: \"https://ci.example.com\", audiences: [zt]}\n  %s\n", tt.mapping)
			f, err := NewFurtherIssuers(t.Context(), []byte(config), FurtherOptions{UsernamePrefix: "zt:"})
			if err != nil {
				t.Fatal(err)
			}
			if got := f.MayName(tt.name); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if (*FurtherIssuers)(nil).MayName("ci:bot") {
		t.Error("without further issuers")
	}
}
