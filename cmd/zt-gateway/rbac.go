package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/api/v1alpha1"
	"github.com/kube-zt/zt/pkg/gateway/authn"
	"github.com/kube-zt/zt/pkg/gateway/control"
	"github.com/kube-zt/zt/pkg/gateway/files"
	"github.com/kube-zt/zt/pkg/gateway/impersonate"
	"github.com/kube-zt/zt/pkg/wire"
)

type rbacFlags struct {
	Profile string
	Config  string
	Cluster string
	// Gateway is the GatewayConfiguration; empty means gateway.yaml beside the
	// directory Config, if any.
	Gateway string
}

func newRBACCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var flags rbacFlags
	cmd := &cobra.Command{
		Use:   "rbac --config DIR",
		Short: "Print the account and the rights that the gateway needs in a cluster",
		Long: `Print, as YAML for kubectl apply, the namespace, the service account
zt-impersonate and the ClusterRole that lets it act in people's names: as the
groups of the roles in DIR and, in the constrained profile (Kubernetes 1.36 and
newer), only for what the policies in DIR allow. What further issuers map to
extra keys is in it, too, so the gateway's configuration is read as well. Apply
it again when roles, policies or further issuers change. Whoever applies it must
hold these rights himself.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRBAC(cmd.Context(), streams, flags, time.Now())
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.Config, "config", "", "directory with the manifests, as in Directory/config")
	f.StringVar(&flags.Profile, "profile", "", "constrained or legacy (default: what the TargetCluster says)")
	f.StringVar(&flags.Cluster, "cluster", "", "TargetCluster (default: the only one)")
	f.StringVar(&flags.Gateway, "gateway", "", "GatewayConfiguration (default: gateway.yaml beside DIR, if it exists)")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

func runRBAC(ctx context.Context, streams genericiooptions.IOStreams, flags rbacFlags, now time.Time) error {
	wishes, problems, err := readManifests(flags.Config, now)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w\nhint: %s", err, initUse)
	}
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		manifest.Sort(problems)
		for _, p := range problems {
			fmt.Fprintln(streams.ErrOut, p.Error())
		}
		return errReported
	}
	cluster, err := wishes.choose(flags.Cluster)
	if err != nil {
		return err
	}
	needs := impersonate.NeedsOf(cluster, wishes.roles, wishes.policies)
	switch strings.ToLower(flags.Profile) {
	case "":
	case "constrained":
		needs.Profile = v1alpha1.ImpersonationConstrained
	case "legacy":
		needs.Profile = v1alpha1.ImpersonationLegacy
	default:
		return fmt.Errorf("--profile %q: want constrained or legacy\nhint: --profile constrained", flags.Profile)
	}
	if needs.ExtraKeys, err = extraKeys(ctx, streams, flags); err != nil {
		return err
	}
	out := bytes.Buffer{}
	fmt.Fprintf(&out, "# zt-gateway rbac: cluster %s, profile %s.\n", cluster.Name, strings.ToLower(string(needs.Profile)))
	printer := &printers.YAMLPrinter{}
	for _, object := range accountObjects(needs) {
		if err := printer.PrintObj(object, &out); err != nil {
			return err
		}
	}
	_, err = streams.Out.Write(out.Bytes())
	return err
}

// extraKeys are those that the further issuers' claims are mapped to. Without its
// right to them the account could impersonate nobody of these issuers, so what
// cannot be read is an error and no empty list.
func extraKeys(ctx context.Context, streams genericiooptions.IOStreams, flags rbacFlags) ([]string, error) {
	file := flags.Gateway
	if file == "" {
		dir, err := filepath.Abs(flags.Config)
		if err != nil {
			return nil, err
		}
		if file = filepath.Join(filepath.Dir(dir), "gateway.yaml"); !isFile(file) {
			fmt.Fprintf(streams.ErrOut, "zt-gateway: there is no %s, so no extra keys of further issuers are in this\nhint: --gateway FILE names it\n", file)
			return nil, nil
		}
	}
	c, _, err := readConfiguration(ctx, file)
	if err != nil || c.FurtherIssuersFile == "" {
		return nil, err
	}
	read, err := files.Read(ctx, c.FurtherIssuersFile)
	if err != nil {
		return nil, fmt.Errorf("%s: furtherIssuersFile: %w", file, err)
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	issuers, err := furtherIssuers(ctx, c, read.Data[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.FurtherIssuersFile, err)
	}
	return issuers.ExtraKeys(), nil
}

// furtherIssuers are what c's file of them says, as serve would read it.
func furtherIssuers(ctx context.Context, c *v1alpha1.GatewayConfiguration, data []byte) (*authn.FurtherIssuers, error) {
	return authn.NewFurtherIssuers(ctx, data, authn.FurtherOptions{
		LoginClientID: c.OIDC.ClientID, ControlIssuer: control.Issuer(c.Domain), UsernamePrefix: c.OIDC.UsernamePrefix,
	})
}

// wishes are the manifests that say what the account must be able to do.
type wishes struct {
	clusters map[string]*v1alpha1.TargetCluster
	roles    []wire.Role
	policies []*v1alpha1.AccessPolicy
}

func readManifests(dir string, now time.Time) (wishes, []manifest.Error, error) {
	w := wishes{clusters: map[string]*v1alpha1.TargetCluster{}}
	var problems []manifest.Error
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(path); entry.IsDir() || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		objects, errs := manifest.Decode(path, data)
		problems = append(problems, errs...)
		for i := range objects {
			problems = append(problems, objects[i].Check(now)...)
			switch o := objects[i].Object.(type) {
			case *v1alpha1.TargetCluster:
				w.clusters[o.Name] = o
			case *v1alpha1.AccessRole:
				w.roles = append(w.roles, wire.Role(o.Name))
			case *v1alpha1.AccessPolicy:
				w.policies = append(w.policies, o)
			}
		}
		return nil
	})
	return w, problems, err
}

func (w *wishes) choose(name string) (*v1alpha1.TargetCluster, error) {
	names := slices.Sorted(maps.Keys(w.clusters))
	switch {
	case name != "" && w.clusters[name] != nil:
		return w.clusters[name], nil
	case name != "":
		return nil, fmt.Errorf("there is no TargetCluster %q; there are: %s", name, strings.Join(names, ", "))
	case len(names) == 1:
		return w.clusters[names[0]], nil
	case len(names) == 0:
		return nil, errors.New("there is no TargetCluster in the directory")
	default:
		return nil, fmt.Errorf("there are several clusters: choose one with --cluster (%s)", strings.Join(names, ", "))
	}
}

// accountObjects are what kubectl shall apply, in the order in which they need
// each other.
func accountObjects(needs impersonate.Needs) []runtime.Object {
	labels := map[string]string{"app.kubernetes.io/part-of": "zt"}
	return []runtime.Object{
		&corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: impersonate.Namespace, Labels: labels},
		},
		&corev1.ServiceAccount{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
			ObjectMeta: metav1.ObjectMeta{Namespace: impersonate.Namespace, Name: impersonate.Account, Labels: labels},
			// Only the gateway's own pod mounts the token, and says so itself.
			AutomountServiceAccountToken: new(false),
		},
		&rbacv1.ClusterRole{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole"},
			ObjectMeta: metav1.ObjectMeta{Name: impersonate.Account, Labels: labels},
			Rules:      needs.Rules(),
		},
		&rbacv1.ClusterRoleBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
			ObjectMeta: metav1.ObjectMeta{Name: impersonate.Account, Labels: labels},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: impersonate.Account},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: impersonate.Namespace, Name: impersonate.Account}},
		},
	}
}
