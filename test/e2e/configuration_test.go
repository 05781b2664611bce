package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
)

// What may change in gateway.yaml takes effect without a restart, and a faulty
// file leaves the old one in force and says where the fault is.
func TestConfigurationReload(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	if err := laptop(t, s, "alice").Login(t.Context()); err != nil {
		t.Fatalf("before the change: %v", err)
	}
	pid := s.Gateway.PID()
	reloads := func(result string) bool {
		_, text, err := s.Admin(t.Context(), "/metrics")
		return err == nil && strings.Contains(text, `zt_reloads_total{result="`+result+`",source="configuration"}`)
	}
	refused := func(when string) {
		t.Helper()
		res := laptop(t, s, "alice").ZT(t.Context(), "login", s.LoginURL)
		if res.Code == 0 || !strings.Contains(res.Stderr, "kubectl zt device enroll") {
			t.Errorf("%s an unknown device: %v", when, res)
		}
	}

	if err := s.EditConfiguration(func(c *v1alpha1.GatewayConfiguration) { c.Login.Enrolment = v1alpha1.EnrolmentApproval }); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the configuration was loaded", func() bool { return reloads("ok") })
	refused("after enrolment by approval was set,")

	good, err := os.ReadFile(s.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	faulty := strings.Replace(string(good), "enrolment: Approval", "enrolmant: Open", 1)
	if faulty == string(good) {
		t.Fatalf("nothing to misspell in:\n%s", good)
	}
	if err := os.WriteFile(s.ConfigFile, []byte(faulty), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the faulty file was counted", func() bool { return reloads("error") })
	place := regexp.MustCompile(`gateway\.yaml:\d+.*enrolmant`)
	eventually(t, 5*time.Second, "the log names file and line", func() bool { return place.MatchString(s.Gateway.Logs()) })
	refused("under a faulty file,")
	if s.Gateway.PID() != pid || s.WaitReady(t.Context()) != nil {
		t.Error("the gateway did not live through it")
	}
}
