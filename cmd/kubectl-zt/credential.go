package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/execcred"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/wire"
)

// credentialMain is the exec plugin. It is reached without the command tree:
// every kubectl waits for it. stdout carries the document or nothing.
func credentialMain(p *process, args []string) exit {
	name, cluster, verbose, err := credentialArgs(args)
	if err == nil {
		// No handler for signals: to install them takes as long as to ask the agent.
		err = runCredential(context.Background(), p, name, cluster, verbose)
	}
	if err == nil {
		return 0
	}
	fault.Of(err).Print(p.err)
	// client-go prints the code to people who cannot know a table of them.
	return fault.ExitFailed
}

// credentialArgs reads the two flags that a kubeconfig of zt's has.
func credentialArgs(args []string) (name profile.Name, cluster wire.ClusterName, verbose bool, err error) {
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "--profile", "--cluster":
			if i+1 == len(args) {
				return "", "", false, usage("kubectl zt kubeconfig", "%s has no value", args[i])
			}
			if args[i] == "--profile" {
				name = profile.Name(args[i+1])
			} else {
				cluster = wire.ClusterName(args[i+1])
			}
			i++
		case "-v", "--verbose":
			verbose = true
		default:
			return "", "", false, usage("kubectl zt credential --profile P --cluster C", "%q is not an argument of credential", args[i])
		}
	}
	if name == "" || cluster == "" {
		return "", "", false, usage("kubectl zt kubeconfig", "credential is run by kubectl, with --profile and --cluster")
	}
	return name, cluster, verbose, nil
}

func runCredential(ctx context.Context, p *process, name profile.Name, cluster wire.ClusterName, verbose bool) error {
	o := &rootOptions{profile: string(name), verbose: verbose}
	c, err := p.client(o)
	if err != nil {
		return err
	}
	defer o.status.clear()
	// In a full-screen tool a line of progress would land in the middle of the
	// picture; what a person must read for a login he does see.
	o.status.tty = false
	if !p.errTTY {
		c.Notice = nil
	}
	c.Hurried = true
	req := p.request(o, agent.OpCredential)
	req.Attended = p.inTTY
	doc, err := c.Do(ctx, req, agent.CredentialArgs{Cluster: cluster, ExecInfo: p.env(execcred.EnvInfo)})
	if err != nil {
		return err
	}
	_, err = p.out.Write(doc)
	return err
}

// newCredentialHelp is what --help shows; the command itself never gets here.
func newCredentialHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "credential --profile P --cluster C",
		Short: "Give kubectl a token (run by kubectl itself)",
		Args:  noArgs, Hidden: true, DisableFlagParsing: true,
	}
}
