package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env/stack"
	"github.com/kube-zt/zt/test/idp"
	"github.com/kube-zt/zt/test/transcript"
)

// Where devices must be approved, an unknown one is refused before the login
// page (F17); enrolling it names a person, and an administrator's manifest lets
// it in.
func TestEnrolmentByApproval(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{Configure: func(c *v1alpha1.GatewayConfiguration) {
		c.Login.Enrolment = v1alpha1.EnrolmentApproval
	}}, idp.Options{})
	alice := laptop(t, s, "alice")

	res := alice.ZT(t.Context(), "login", s.LoginURL)
	if res.Code == 0 {
		t.Fatalf("an unknown device logged in: %v", res)
	}
	wantIn(t, res.Stderr, "hint: ")
	wantIn(t, res.Stderr, "kubectl zt device enroll")
	if alice.BrowserOpens() != 0 || s.IdP.Counters().Authorizations != 0 {
		t.Error("the login page was opened for an unknown device")
	}

	if res := alice.ZT(t.Context(), "device", "enroll"); res.Code != 0 {
		t.Fatalf("device enroll: %v", res)
	}
	if res := alice.ZT(t.Context(), "login"); res.Code == 0 {
		t.Fatalf("a pending device logged in: %v", res)
	}
	id, err := alice.DeviceID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteManifest("alice.yaml", "apiVersion: kube-zt.io/v1alpha1\nkind: Device\nmetadata:\n  name: "+id+"\nspec:\n  approved: true\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := alice.Connect(t.Context(), stack.Cluster); err != nil {
		t.Fatal(err)
	}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("get pods: %v", res)
	}
	// The same device is not another person's way in.
	alice.ZT(t.Context(), "logout")
	alice.SetUser("bob")
	if res := alice.ZT(t.Context(), "login"); res.Code == 0 {
		t.Errorf("bob logged in on alice's device: %v", res)
	}
}

var (
	verificationURL = regexp.MustCompile(`https://\S+/device\b`)
	userCode        = regexp.MustCompile(`\b[A-Z]{4}-[A-Z]{4}\b`)
)

// A person at a terminal without a browser logs in by a code on another device,
// where the gateway allows that (B16).
func TestDeviceCode(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{Configure: func(c *v1alpha1.GatewayConfiguration) {
		c.Login.DeviceCode = true
	}}, idp.Options{DeviceInterval: time.Second})
	// A device that its owner has used before holds its tier; his first login is
	// an ordinary one, for a code never makes a first owner.
	alice := connected(t, s, "alice")
	if err := alice.ApproveDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := alice.ZT(t.Context(), "logout"); res.Code != 0 {
		t.Fatalf("logout: %v", res)
	}
	if out, err := loginByCode(t, s, alice, "alice"); err != nil {
		t.Fatalf("login --device-code: %v\n%s", err, out)
	}
	res := alice.ZT(t.Context(), "status")
	wantIn(t, res.Stdout, "alice@example.com")
	wantIn(t, res.Stdout, "(software)")
}

// loginByCode logs in on l by a code that person approves in a browser of his own.
func loginByCode(t *testing.T, s *stack.Stack, l *stack.Laptop, person string) (string, error) {
	t.Helper()
	l.SetUser("")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr transcript.Buffer
	cmd := l.Command(ctx, "kubectl-zt", "login", "--device-code", s.LoginURL)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("login --device-code:\n%s", stderr.String())
		}
	}()
	eventually(t, 20*time.Second, "URL and code are shown", func() bool {
		return verificationURL.MatchString(stderr.String()) && userCode.MatchString(stderr.String())
	})
	url := verificationURL.FindString(stderr.String())
	if err := s.IdP.Browser().ApproveDevice(ctx, url, userCode.FindString(stderr.String()), person); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	return stderr.String(), err
}

// V014: an attacker starts the flow on his machine and the victim, an
// administrator, approves it. What he gets is of tier none: no role of hers, no
// cluster, no token.
func TestV014DeviceCodePhishing(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{Configure: func(c *v1alpha1.GatewayConfiguration) {
		c.Login.DeviceCode = true
	}}, idp.Options{DeviceInterval: time.Second})
	victim := admin(t, s)
	attacker := laptop(t, s, "")
	out, err := loginByCode(t, s, attacker, "carol")
	t.Logf("the attacker sees (%v):\n%s", err, out)
	// Whoever is in earnest learns why he sees nothing.
	wantIn(t, attacker.ZT(t.Context(), "status").Stdout, "(none: signed in by a code")
	if res := attacker.ZT(t.Context(), "clusters", "-o", "name"); strings.Contains(res.Stdout, stack.Cluster) {
		t.Errorf("the attacker sees the cluster: %v", res)
	}
	if res := attacker.ZT(t.Context(), "connect", stack.Cluster); res.Code == 0 {
		t.Errorf("the attacker is connected: %v", res)
	}
	if res := attacker.ZT(t.Context(), "credential", "--profile", Profile, "--cluster", stack.Cluster); res.Code == 0 || res.Stdout != "" {
		t.Errorf("the attacker has a token: exit %d", res.Code)
	}
	if res := victim.Kubectl(t.Context(), "get", "nodes"); res.Code != 0 {
		t.Errorf("the victim's own laptop: %v", res)
	}
}

// Profile is the name that the client gives to the stack's gateway.
const Profile = stack.Domain

// Where the gateway does not allow the device code, the client does not try it.
func TestDeviceCodeRefused(t *testing.T) {
	t.Parallel()
	s := world(t)
	bob := laptop(t, s, "bob")
	res := bob.ZT(t.Context(), "login", "--device-code", s.LoginURL)
	if res.Code == 0 {
		t.Fatalf("logged in: %v", res)
	}
	wantIn(t, res.Stderr, "hint:")
	if n := s.IdP.Counters().DeviceAuthorizations; n != 0 {
		t.Errorf("%d device authorisations", n)
	}
}

// Permissive lets pass and writes down, until its end and no longer (F21).
func TestPermissive(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	if res := alice.Kubectl(t.Context(), "get", "configmaps"); !strings.Contains(res.Stderr, "zt: no policy") {
		t.Fatalf("enforcing: %v", res)
	}
	cluster, err := os.ReadFile(filepath.Join(s.ConfigDir, "cluster-prod.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteManifest("cluster-prod.yaml", string(cluster)+"  enforcement:\n    mode: Permissive\n    until: "+until+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The request reaches the cluster, where RBAC speaks.
	eventually(t, 10*time.Second, "RBAC answers", func() bool {
		res := alice.Kubectl(t.Context(), "get", "configmaps")
		return strings.Contains(res.Stderr, `configmaps is forbidden: User "zt:alice@example.com"`)
	})
	log, err := os.ReadFile(s.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, string(log), `"wouldDeny":true`)
	_, text, err := s.Admin(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, text, `zt_would_deny_total{cluster="prod"}`)
	wantIn(t, alice.ZT(t.Context(), "clusters").Stdout, "Permissive until")
}

// A mistake in what people write changes nothing and says where it is.
func TestBadReloadKeepsTheOldState(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Options{}, idp.Options{})
	alice := connected(t, s, "alice")
	if err := s.WriteManifest("bad.yaml", "apiVersion: kube-zt.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: bad}\nspec:\n  rols: [x]\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := alice.Kubectl(t.Context(), "get", "pods"); res.Code != 0 {
		t.Errorf("after a bad reload: %v", res)
	}
	wantIn(t, s.Gateway.Logs(), "bad.yaml")
	wantIn(t, s.Gateway.Logs(), `roles`)
	_, text, err := s.Admin(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	wantIn(t, text, `zt_reloads_total{result="error",source="objects"}`)
}
