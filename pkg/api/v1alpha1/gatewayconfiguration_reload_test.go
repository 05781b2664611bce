package v1alpha1

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReloaded(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		change  func(*GatewayConfiguration)
		live    bool // takes effect at once
		waiting []string
	}{
		{name: "nothing", change: func(*GatewayConfiguration) {}, live: true},
		{name: "session", change: func(c *GatewayConfiguration) { c.Session.TokenLifetime = metav1.Duration{Duration: time.Minute} }, live: true},
		{name: "login", change: func(c *GatewayConfiguration) { c.Login.DeviceCode = true }, live: true},
		{name: "limits", change: func(c *GatewayConfiguration) { c.Limits.TunnelsPerDevice = 3 }, live: true},
		{name: "required claims", change: func(c *GatewayConfiguration) { c.OIDC.RequiredClaims = map[string]string{"hd": "example.com"} }, live: true},
		{name: "domain", change: func(c *GatewayConfiguration) { c.Domain = "other.example" }, waiting: []string{"domain"}},
		{name: "issuer", change: func(c *GatewayConfiguration) { c.OIDC.Issuer = "https://other.example" }, waiting: []string{"oidc.issuer"}},
		{name: "a certificate where there was none", change: func(c *GatewayConfiguration) { c.Certificate = &CertificateFiles{CertFile: "a", KeyFile: "b"} }, waiting: []string{"certificate"}},
		{name: "several", change: func(c *GatewayConfiguration) {
			c.Listen, c.Metrics.Listen, c.OIDC.UsernamePrefix = ":1", "127.0.0.1:2", "x:"
		}, waiting: []string{"listen", "oidc.usernamePrefix", "metrics.listen"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			old := &GatewayConfiguration{Domain: "example.com", OIDC: OIDC{Issuer: "https://idp.example", Scopes: []string{"openid"}}}
			before, next := old.DeepCopy(), old.DeepCopy()
			tc.change(next)
			live, waiting := old.Reloaded(next)
			if diff := cmp.Diff(tc.waiting, waiting); diff != "" {
				t.Errorf("waiting (-want +got):\n%s", diff)
			}
			if same := cmp.Equal(live, next); same != tc.live {
				t.Errorf("in force at once: %v, want %v", same, tc.live)
			}
			if diff := cmp.Diff(before, old); diff != "" {
				t.Errorf("the old configuration was changed:\n%s", diff)
			}
		})
	}
}
