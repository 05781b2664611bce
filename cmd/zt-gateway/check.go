package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/store"
	"github.com/kube-zt/zt/pkg/wire"
)

type checkFlags struct {
	// Config is the GatewayConfiguration; empty means DIR/gateway.yaml, if any.
	Config string
	// Now judges what has an end.
	Now time.Time
}

func newCheckCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var flags checkFlags
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Validate a configuration without starting anything",
		Long: `Validate a configuration directory and say where what is wrong: file, line,
field, and what was probably meant. DIR is what the gateway's configuration calls
directory (manifests are then in DIR/config), or a directory of manifests.
Nothing is written, locked or dialled; the gateway may run meanwhile.

Exit code 0: the gateway would load it. 1: it would not.`,
		Example: "  zt-gateway check /etc/zt\n  zt-gateway check examples/config",
		Args:    arguments("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.Now = time.Now()
			return runCheck(cmd.Context(), streams, args[0], flags)
		},
	}
	cmd.Flags().StringVar(&flags.Config, "config", "", "GatewayConfiguration to check as well (default DIR/gateway.yaml, if it exists)")
	return cmd
}

func runCheck(ctx context.Context, streams genericiooptions.IOStreams, dir string, flags checkFlags) error {
	manifests := filepath.Join(dir, "config")
	if !isDirectory(manifests) {
		manifests = dir
	}
	file := flags.Config
	if file == "" && isFile(filepath.Join(dir, "gateway.yaml")) {
		// Beside gateway.yaml manifests belong into a directory of their own.
		file, manifests = filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "config")
	}
	var problems []manifest.Error
	gateway, problems, err := checkGateway(ctx, file, flags.Now)
	if err != nil {
		return err
	}
	config, err := store.LoadConfig(ctx, manifests, flags.Now)
	var refused *store.ConfigError
	switch {
	case errors.As(err, &refused):
		problems = append(problems, refused.Problems...)
	case errors.Is(err, fs.ErrNotExist):
		problems = append(problems, manifest.Error{File: manifests, Message: "is missing: the directory of clusters, roles and policies"})
	case err != nil:
		return err
	}
	if len(problems) > 0 {
		manifest.Sort(problems)
		for _, p := range problems {
			fmt.Fprintln(streams.Out, p.Error())
		}
		if len(problems) == 1 {
			return errors.New("1 problem")
		}
		return fmt.Errorf("%d problems", len(problems))
	}
	describeGateway(streams.Out, file, gateway)
	describeConfig(streams.Out, config, flags.Now)
	return nil
}

func checkGateway(ctx context.Context, file string, now time.Time) (*v1alpha1.GatewayConfiguration, []manifest.Error, error) {
	if file == "" {
		return nil, nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	c, problems := manifest.DecodeGateway(file, data, now)
	if len(problems) > 0 {
		return c, problems, nil
	}
	if err := resolve(file, c); err != nil {
		return nil, nil, err
	}
	return c, checkIssuers(ctx, c), nil
}

// checkIssuers judges the file of further issuers as a start would; where it is not
// here, that is a note.
func checkIssuers(ctx context.Context, c *v1alpha1.GatewayConfiguration) []manifest.Error {
	file := c.FurtherIssuersFile
	if file == "" || !isFile(file) {
		return nil
	}
	data, err := os.ReadFile(file)
	if err == nil {
		ctx, done := context.WithCancel(ctx)
		defer done()
		_, err = furtherIssuers(ctx, c, data)
	}
	if err != nil {
		return []manifest.Error{{File: file, Message: err.Error()}}
	}
	return nil
}

func describeGateway(out io.Writer, file string, c *v1alpha1.GatewayConfiguration) {
	if c == nil {
		return
	}
	fmt.Fprintf(out, "%s: domain %s, issuer %s, enrolment %s\n", file, c.Domain, c.OIDC.Issuer, c.Login.Enrolment)
	named := map[string]string{
		"oidc.certificateAuthorityFile": c.OIDC.CertificateAuthorityFile,
		"furtherIssuersFile":            c.FurtherIssuersFile,
	}
	if c.Certificate != nil {
		named["certificate.certFile"], named["certificate.keyFile"] = c.Certificate.CertFile, c.Certificate.KeyFile
	}
	noteMissing(out, file, named)
}

// describeConfig says what was found, and what is allowed but seldom meant.
func describeConfig(out io.Writer, c *store.Config, now time.Time) {
	fmt.Fprintf(out, "%s, version %s\n", c.Summary(), c.Version)
	byName(c.Clusters)
	byName(c.Roles)
	byName(c.Policies)
	for _, cluster := range c.Clusters {
		coverage := c.Policy.Coverage(wire.ClusterName(cluster.Name), now)
		if coverage == "no policy" {
			coverage += ", so every request is refused"
		}
		fmt.Fprintf(out, "cluster %s: %s\n", cluster.Name, coverage)
		softened(out, "cluster "+cluster.Name, cluster.Spec.Enforcement, now)
		s := &cluster.Spec
		if !s.InCluster {
			noteMissing(out, "cluster "+cluster.Name, map[string]string{"spec.tokenFile": s.TokenFile, "spec.certificateAuthorityFile": s.CertificateAuthorityFile})
		}
	}
	used := map[string]bool{}
	for _, policy := range c.Policies {
		softened(out, "policy "+policy.Name, policy.Spec.Enforcement, now)
		for _, role := range policy.Spec.Roles {
			used[role] = true
		}
	}
	for _, role := range c.Roles {
		if len(role.Spec.Users)+len(role.Spec.Groups) == 0 {
			note(out, "role %s: has neither users nor groups, so nobody holds it", role.Name)
		}
		if !used[role.Name] && !used["*"] {
			note(out, "role %s: no policy names it", role.Name)
		}
		if slices.Contains(role.Spec.Device.Tiers, v1alpha1.TierNone) {
			note(out, "role %s: can be held without a device (tier none)", role.Name)
		}
	}
	for _, path := range c.Ignored {
		note(out, "%s: not read, it is no .yaml, .yml or .json", path)
	}
}

func note(out io.Writer, format string, args ...any) {
	fmt.Fprintf(out, "note: "+format+"\n", args...)
}

func softened(out io.Writer, what string, e v1alpha1.Enforcement, now time.Time) {
	if e.Mode == v1alpha1.EnforcementPermissive && !e.Until.After(now) {
		note(out, "%s: Permissive has ended on %s, so it is enforced", what, e.Until.UTC().Format(time.RFC3339))
	}
}

// noteMissing: files may be on another machine than the one that checks.
func noteMissing(out io.Writer, what string, named map[string]string) {
	fields := make([]string, 0, len(named))
	for field, path := range named {
		if path != "" && !isFile(path) {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	for _, field := range fields {
		note(out, "%s: %s: there is no file %s here", what, field, named[field])
	}
}

func byName[O interface{ GetName() string }](objects []O) {
	slices.SortFunc(objects, func(a, b O) int { return strings.Compare(a.GetName(), b.GetName()) })
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
