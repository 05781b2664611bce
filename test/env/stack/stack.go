package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/test/env"
	"github.com/kube-zt/zt/test/idp"
)

// Domain is under what names the gateway answers; no DNS knows it.
const Domain = "zt.test"

// Cluster is the name of the cluster that the stack offers.
const Cluster = "prod"

// Options says what differs from the usual.
type Options struct {
	// ControlPlane and IdP are the caller's; the stack stops neither.
	ControlPlane *env.ControlPlane
	IdP          *idp.Provider
	// Configure changes the gateway's configuration before it is written.
	Configure func(*v1alpha1.GatewayConfiguration)
	// Manifests are further files of config/, by name.
	Manifests map[string]string
	// Impersonation profile; constrained by default.
	Impersonation v1alpha1.ImpersonationProfile
	// Log hears what goes on; nil is silent.
	Log io.Writer
	// GatewayEnv is added to the gateway's environment.
	GatewayEnv []string
	// NotStarted leaves the gateway for StartGateway.
	NotStarted bool
}

// Stack is a running zt.
type Stack struct {
	Dir          string // temporary; removed by Close
	ControlPlane *env.ControlPlane
	IdP          *idp.Provider
	Gateway      *Gateway

	ConfigFile string // gateway.yaml
	ConfigDir  string // config/
	StateDir   string // state/
	Address    string // host:port of the public listener
	Metrics    string // host:port of the loopback listener
	LoginURL   string // with the pin

	log        io.Writer
	profile    v1alpha1.ImpersonationProfile
	group      *env.Group
	gatewayEnv []string

	mu      sync.Mutex
	laptops []*Laptop
}

// Start writes a configuration with the examples' roles and policies and the
// cluster Cluster, gives the gateway its account there, and starts it.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	if _, err := Programs(ctx); err != nil {
		return nil, err
	}
	s := &Stack{ControlPlane: o.ControlPlane, IdP: o.IdP, log: o.Log, gatewayEnv: o.GatewayEnv}
	if s.log == nil {
		s.log = io.Discard
	}
	if s.group, err = env.NewGroup(); err != nil {
		return nil, err
	}
	if s.Dir, err = os.MkdirTemp("", "zt-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.ConfigFile = filepath.Join(s.Dir, "gateway", "gateway.yaml")
	s.ConfigDir = filepath.Join(s.Dir, "gateway", "config")
	s.StateDir = filepath.Join(s.Dir, "gateway", "state")
	if s.Address, err = freeAddress(); err != nil {
		return nil, err
	}
	if s.Metrics, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := s.initialise(ctx, o); err != nil {
		return nil, err
	}
	if err := s.GrantImpersonation(ctx, o.Impersonation); err != nil {
		return nil, err
	}
	if o.NotStarted {
		return s, nil
	}
	return s, s.StartGateway(ctx)
}

// freeAddress finds a port that is free now. It is the kernel's next ephemeral
// one, so nobody else gets it in the moment until the gateway listens.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

var loginURL = regexp.MustCompile(`https://\S+#sha256=[0-9a-f]{64}`)

func (s *Stack) initialise(ctx context.Context, o Options) error {
	ca := filepath.Join(s.Dir, "issuer-ca.pem")
	if err := os.WriteFile(ca, s.IdP.CAPEM(), 0o600); err != nil {
		return err
	}
	out, err := s.GatewayCommand(ctx, "init", filepath.Dir(s.ConfigFile),
		"--domain", Domain, "--issuer", s.IdP.Issuer(), "--client-id", s.IdP.ClientID(),
		"--issuer-ca", ca, "--listen", s.Address, "--public-address", s.Address)
	if err != nil {
		return err
	}
	if s.LoginURL = loginURL.FindString(out); s.LoginURL == "" {
		return fmt.Errorf("zt-gateway init printed no login URL:\n%s", out)
	}
	if err := s.EditConfiguration(func(c *v1alpha1.GatewayConfiguration) {
		c.Metrics.Listen = s.Metrics
		c.Login.Enrolment = v1alpha1.EnrolmentOpen
		c.Limits.LoginsPerSourcePerMinute = 100000
		c.Shutdown = v1alpha1.Shutdown{DrainTimeout: metav1.Duration{Duration: 5 * time.Second}, Delay: &metav1.Duration{}}
		if o.Configure != nil {
			o.Configure(c)
		}
	}); err != nil {
		return err
	}
	return s.writeManifests(o)
}

// EditConfiguration reads gateway.yaml, changes it and writes it back.
func (s *Stack) EditConfiguration(change func(*v1alpha1.GatewayConfiguration)) error {
	raw, err := os.ReadFile(s.ConfigFile)
	if err != nil {
		return err
	}
	var c v1alpha1.GatewayConfiguration
	if err := yaml.UnmarshalStrict(raw, &c); err != nil {
		return fmt.Errorf("read %s: %w", s.ConfigFile, err)
	}
	change(&c)
	if raw, err = yaml.Marshal(c); err != nil {
		return err
	}
	return os.WriteFile(s.ConfigFile, raw, 0o600)
}

func (s *Stack) writeManifests(o Options) error {
	if err := os.RemoveAll(s.ConfigDir); err != nil {
		return err
	}
	if err := os.MkdirAll(s.ConfigDir, 0o700); err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	if err := os.CopyFS(s.ConfigDir, os.DirFS(filepath.Join(root, "examples", "config"))); err != nil {
		return err
	}
	if err := os.WriteFile(s.authorityFile(), s.ControlPlane.CAPEM, 0o600); err != nil {
		return err
	}
	s.profile = o.Impersonation
	if s.profile == "" {
		s.profile = v1alpha1.ImpersonationConstrained
	}
	if err := s.WriteCluster(Cluster, "prod", `displayName: Production
  description: Where the customers are
  link: https://runbooks.example.com/prod`); err != nil {
		return err
	}
	for name, text := range o.Manifests {
		if err := s.WriteManifest(name, text); err != nil {
			return err
		}
	}
	return nil
}

// WriteCluster writes a TargetCluster whose label env is as said, for the control
// plane of the stack; spec is further YAML of the spec, or empty.
func (s *Stack) WriteCluster(name, env, spec string) error {
	return s.WriteManifest("cluster-"+name+".yaml", fmt.Sprintf(`apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata:
  name: %s
  labels: {env: %s}
spec:
  url: %s
  certificateAuthorityFile: %s
  tokenFile: %s
  impersonation: %s
  %s
`, name, env, s.ControlPlane.URL, s.authorityFile(), s.tokenFile(), s.profile, spec))
}

func (s *Stack) authorityFile() string { return filepath.Join(s.Dir, "cluster-ca.pem") }

func (s *Stack) tokenFile() string { return filepath.Join(s.Dir, "zt-impersonate.token") }

// WriteManifest writes a file of config/ in one step; the gateway loads it soon.
func (s *Stack) WriteManifest(name, text string) error {
	part := filepath.Join(s.Dir, "."+filepath.Base(name)+".part")
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(s.ConfigDir, name))
}

// RemoveManifest removes a file of config/.
func (s *Stack) RemoveManifest(name string) error {
	return os.Remove(filepath.Join(s.ConfigDir, name))
}

// GrantImpersonation applies what `zt-gateway rbac` prints, and the examples'
// RBAC, and writes the gateway's token.
func (s *Stack) GrantImpersonation(ctx context.Context, profile v1alpha1.ImpersonationProfile) error {
	if profile == "" {
		profile = v1alpha1.ImpersonationConstrained
	}
	manifests, err := s.GatewayCommand(ctx, "rbac", "--profile", strings.ToLower(string(profile)), "--config", s.ConfigDir)
	if err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "examples", "rbac", "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		manifests += "\n---\n" + string(text)
	}
	if _, err := s.ControlPlane.ServiceAccountToken(ctx, "zt-system", "zt-impersonate", time.Hour); err != nil {
		return err // this call made the namespace
	}
	if err := s.ControlPlane.Apply(ctx, manifests); err != nil {
		return err
	}
	token, err := s.ControlPlane.ServiceAccountToken(ctx, "zt-system", "zt-impersonate", time.Hour)
	if err != nil {
		return err
	}
	return os.WriteFile(s.tokenFile(), []byte(token), 0o600)
}

// GatewayCommand runs another verb of zt-gateway and returns its stdout.
func (s *Stack) GatewayCommand(ctx context.Context, args ...string) (string, error) {
	bin, err := Programs(ctx)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "zt-gateway"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("zt-gateway %s: %w\n%s", args[0], err, stderr.String())
	}
	return stdout.String(), nil
}

// AuditLog is the gateway's own log of intents, outcomes and events.
func (s *Stack) AuditLog() string { return filepath.Join(s.StateDir, "audit.log") }

// moduleRoot is where go.mod stands.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if isFile(filepath.Join(dir, "go.mod")) && isFile(filepath.Join(dir, "Makefile")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside a checkout of the module")
		}
	}
}

// Close ends the laptops and the gateway and removes the directory.
func (s *Stack) Close() {
	s.mu.Lock()
	laptops := s.laptops
	s.laptops = nil
	s.mu.Unlock()
	for _, l := range laptops {
		l.Close()
	}
	_ = s.group.Close()
	_ = os.RemoveAll(s.Dir)
}
