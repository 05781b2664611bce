package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kube-zt/zt/pkg/api/manifest"
	"github.com/kube-zt/zt/pkg/gateway/ca"
)

// initUse is how a directory is begun.
const initUse = "zt-gateway init DIR --domain DOMAIN --issuer URL --client-id ID"

type initFlags struct {
	Domain, Issuer, ClientID, IssuerCA string
	Listen, PublicAddress              string
	// The first cluster; in-cluster without Server.
	Cluster, Server, ServerCA, TokenFile string
}

func newInitCommand(streams genericiooptions.IOStreams) *cobra.Command {
	var flags initFlags
	cmd := &cobra.Command{
		Use:   "init DIR --domain DOMAIN --issuer URL --client-id ID",
		Short: "Write a minimal working configuration and print the pin",
		Long: `Write a minimal working configuration into DIR: gateway.yaml, config/ with one
cluster, one role and one policy to edit, and state/ with the gateway's keys.
Nothing that exists is overwritten. The login URL with the pin goes to stdout.`,
		Args: arguments("DIR"),
		RunE: func(_ *cobra.Command, args []string) error { return runInit(streams, args[0], flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.Domain, "domain", "", "DNS suffix of all names; gw.DOMAIN is what laptops dial")
	f.StringVar(&flags.Issuer, "issuer", "", "OpenID provider, exactly as its discovery document says")
	f.StringVar(&flags.ClientID, "client-id", "", "public client registered there, redirect http://127.0.0.1/callback on any port")
	f.StringVar(&flags.IssuerCA, "issuer-ca", "", "PEM file, for an issuer outside the system's roots")
	f.StringVar(&flags.Listen, "listen", ":8443", "address to listen on")
	f.StringVar(&flags.PublicAddress, "public-address", "", "host:port that laptops dial (default gw.DOMAIN and the port of --listen)")
	f.StringVar(&flags.Cluster, "cluster", "example", "name of the first cluster")
	f.StringVar(&flags.Server, "server", "", "its API server, https://… (default: the cluster that the gateway runs in)")
	f.StringVar(&flags.ServerCA, "server-ca", "", "PEM file that verifies --server")
	f.StringVar(&flags.TokenFile, "token-file", "", "token of the account zt-system/zt-impersonate there; needed with --server")
	for _, name := range []string{"domain", "issuer", "client-id"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func runInit(streams genericiooptions.IOStreams, dir string, flags initFlags) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for _, path := range []*string{&flags.IssuerCA, &flags.ServerCA, &flags.TokenFile} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	// What is wrong with the flags is found before anything is written.
	data := struct {
		initFlags
		Directory string
	}{flags, dir}
	text, err := render(gatewayTemplate, data)
	if err != nil {
		return err
	}
	cluster, err := render(clusterTemplate, data)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "gateway.yaml")
	c, problems := manifest.DecodeGateway(file, text, time.Now())
	objects, more := manifest.Decode(filepath.Join(dir, "config", "cluster.yaml"), cluster)
	problems = append(problems, more...)
	for _, o := range objects {
		problems = append(problems, o.Check(time.Now())...)
	}
	if len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(streams.ErrOut, p.Error())
		}
		return errReported
	}
	if _, err := os.Stat(file); err == nil {
		return fmt.Errorf("%s exists already\nhint: zt-gateway serve --config %s", file, file)
	}
	for _, sub := range []string{"", "config", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("%w\nhint: choose a directory that you may write", err)
		}
	}
	for name, text := range map[string]string{"cluster.yaml": string(cluster), "roles.yaml": roleExample, "policies.yaml": policyExample} {
		if err := writeNew(filepath.Join(dir, "config", name), []byte(text)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	authorities, err := ca.Open(filepath.Join(dir, "state"), c.TrustDomain, c.Domain, time.Now)
	if err != nil {
		return err
	}
	if err := writeNew(file, text); err != nil {
		return err
	}
	fmt.Fprintf(streams.Out, "https://%s#sha256=%s\n", withoutDefaultPort(c.PublicAddress), authorities.Pin())
	fmt.Fprintf(streams.ErrOut, `Wrote %s.
Edit config/ for your cluster, give zt its account there, and start:
  zt-gateway rbac --config %s | kubectl apply -f -
%s  zt-gateway serve --config %s
People log in with:
  kubectl zt login https://%s#sha256=%s
`, dir, filepath.Join(dir, "config"), tokenStep(flags.TokenFile), file, withoutDefaultPort(c.PublicAddress), authorities.Pin())
	return nil
}

// tokenStep makes the token that a gateway outside its cluster needs.
func tokenStep(file string) string {
	if file == "" {
		return ""
	}
	return "  (umask 077; kubectl -n zt-system create token zt-impersonate --duration 24h > " + file + ")\n"
}

func withoutDefaultPort(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && port == "443" && !strings.Contains(host, ":") {
		return host
	}
	return address
}

func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func render(text string, data any) ([]byte, error) {
	t, err := template.New("gateway.yaml").Parse(text)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

const gatewayTemplate = `# docs/configuration.md has every setting.
apiVersion: kube-zt.io/v1alpha1
kind: GatewayConfiguration
domain: {{printf "%q" .Domain}}
listen: {{printf "%q" .Listen}}
{{- with .PublicAddress}}
publicAddress: {{printf "%q" .}}
{{- end}}
directory: {{printf "%q" .Directory}}
oidc:
  issuer: {{printf "%q" .Issuer}}
  clientID: {{printf "%q" .ClientID}}
{{- with .IssuerCA}}
  certificateAuthorityFile: {{printf "%q" .}}
{{- end}}
login:
  # An unknown device must enrol (kubectl zt device enroll) and be approved by a
  # Device manifest. Open lets it in as a personal device.
  enrolment: Approval
`

const clusterTemplate = `apiVersion: kube-zt.io/v1alpha1
kind: TargetCluster
metadata:
  name: {{printf "%q" .Cluster}}
spec:
{{- if .Server}}
  url: {{printf "%q" .Server}}
{{- with .ServerCA}}
  certificateAuthorityFile: {{printf "%q" .}}
{{- end}}
  tokenFile: {{printf "%q" .TokenFile}}
{{- else}}
  # The gateway runs in this cluster, as the account zt-system/zt-impersonate.
  inCluster: true
{{- end}}
`

const roleExample = `apiVersion: kube-zt.io/v1alpha1
kind: AccessRole
metadata:
  name: employee
spec:
  groups: [employees]
`

const policyExample = `apiVersion: kube-zt.io/v1alpha1
kind: AccessPolicy
metadata:
  name: employees-look
spec:
  roles: [employee]
  clusters: ["*"]
  rules:
  - verbs: [get, list, watch]
    apiGroups: [""]
    resources: [pods, pods/log]
`
