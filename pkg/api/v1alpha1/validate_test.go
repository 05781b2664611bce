package v1alpha1

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/wire"
)

var now = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// The texts of refusals are held by the goldens of package manifest; here stand
// the borders of what is allowed.

func TestClusterNames(t *testing.T) {
	t.Parallel()
	allowed := []string{"a", "prod-eu-1", "1", strings.Repeat("a", 63), "gw1", "mycontrol"}
	refused := []string{"", "-a", "a-", "A", "a.b", "a_b", "ä", strings.Repeat("a", 64), "a b", "a\n"}
	for _, name := range wire.ReservedClusterNames {
		refused = append(refused, string(name))
	}
	check := func(name string) []Problem {
		c := &TargetCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: TargetClusterSpec{InCluster: true}}
		c.Default()
		return c.Validate(now)
	}
	for _, name := range allowed {
		if p := check(name); len(p) > 0 {
			t.Errorf("%q is refused: %v", name, p)
		}
	}
	for _, name := range refused {
		p := check(name)
		if len(p) != 1 || p[0].Field != "metadata.name" {
			t.Errorf("%q: %v, want one problem of metadata.name", name, p)
		}
	}
}

func TestPermissiveEnds(t *testing.T) {
	t.Parallel()
	month := now.Add(30 * 24 * time.Hour)
	tests := []struct {
		name string
		in   Enforcement
		want int
	}{
		{"enforcing", Enforcement{Mode: EnforcementEnforcing}, 0},
		{"left out", Enforcement{}, 0},
		{"exactly 30 days", permissive(month), 0},
		{"a second more", permissive(month.Add(time.Second)), 1},
		// It has ended and softens nothing; refusing it would stop the gateway
		// from starting the day after.
		{"in the past", permissive(now.Add(-time.Hour)), 0},
		{"without an end", Enforcement{Mode: EnforcementPermissive}, 1},
		{"an end without a beginning", Enforcement{Until: &metav1.Time{Time: month}}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &TargetCluster{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: TargetClusterSpec{InCluster: true, Enforcement: tt.in}}
			c.Default()
			if p := c.Validate(now); len(p) != tt.want {
				t.Errorf("%d problems, want %d: %v", len(p), tt.want, p)
			}
		})
	}
}

func permissive(until time.Time) Enforcement {
	return Enforcement{Mode: EnforcementPermissive, Until: &metav1.Time{Time: until}}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	type target struct {
		Kind, Value string
		OK          bool
	}
	tests := []struct {
		in   RevocationSpec
		want target
	}{
		{RevocationSpec{User: "a"}, target{RevokedUser, "a", true}},
		{RevocationSpec{Group: "a"}, target{RevokedGroup, "a", true}},
		{RevocationSpec{Device: "a"}, target{RevokedDevice, "a", true}},
		{RevocationSpec{Certificate: "a"}, target{RevokedCertificate, "a", true}},
		{RevocationSpec{Session: "a", Roles: []string{"r"}}, target{RevokedSession, "a", true}},
		{RevocationSpec{Role: "a"}, target{RevokedRole, "a", true}},
		{RevocationSpec{Cluster: "a"}, target{RevokedCluster, "a", true}},
		{RevocationSpec{}, target{}},
		{RevocationSpec{User: "a", Role: "b"}, target{}},
		{RevocationSpec{User: "a", Group: "b", Device: "c"}, target{}},
	}
	for _, tt := range tests {
		var got target
		got.Kind, got.Value, got.OK = tt.in.Target()
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.in, diff)
		}
	}
}

// A role's default tiers leave out "none": it must be written out.
func TestRoleDefaultTiers(t *testing.T) {
	t.Parallel()
	r := &AccessRole{}
	r.Default()
	want := []DeviceTier{TierHardwareAttested, TierHardware, TierSoftware}
	if diff := cmp.Diff(want, r.Spec.Device.Tiers); diff != "" {
		t.Error(diff)
	}
	r = &AccessRole{Spec: AccessRoleSpec{Device: DeviceSelector{Tiers: []DeviceTier{TierNone}}}}
	r.Default()
	if diff := cmp.Diff([]DeviceTier{TierNone}, r.Spec.Device.Tiers); diff != "" {
		t.Error(diff)
	}
}

// GatewayConfiguration is valid with what init writes at the least.
func TestLeastGatewayConfiguration(t *testing.T) {
	t.Parallel()
	c := &GatewayConfiguration{Domain: "zt.test", Directory: "/var/lib/zt", OIDC: OIDC{Issuer: "https://127.0.0.1:9443/", ClientID: "kubectl-zt"}}
	c.Default()
	if p := c.Validate(now); len(p) > 0 {
		t.Error(p)
	}
	c.PublicAddress, c.Listen, c.Metrics.Listen = "127.0.0.1:8443", "127.0.0.1:0", "[::1]:0"
	if p := c.Validate(now); len(p) > 0 {
		t.Error(p)
	}
}
