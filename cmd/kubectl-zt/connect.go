package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

func newConnect(p *process, o *rootOptions) *cobra.Command {
	f := &kubeconfigFlags{}
	c := &cobra.Command{
		Use:   "connect CLUSTER",
		Short: "Get to a cluster in one step: login, tunnel and context",
		Long: `Signs in if nobody is (on a terminal), checks this device, opens the tunnel,
tries the way up to the cluster, and writes a context for it that becomes the
current one of zt's kubeconfig file. A hidden cluster is reached by its name as well.`,
		Example: `  kubectl zt connect prod
  kubectl zt connect prod --merge      # into ~/.kube/config`,
		Args:              exactly("CLUSTER"),
		ValidArgsFunction: completeClusters(p, o),
		RunE:              func(c *cobra.Command, args []string) error { return runConnect(c.Context(), p, o, f, args[0]) },
	}
	f.bind(c)
	return c
}

func runConnect(ctx context.Context, p *process, o *rootOptions, f *kubeconfigFlags, name string) error {
	var cluster wire.Cluster
	if err := p.ask(ctx, o, agent.OpConnect, agent.ClusterArgs{Cluster: wire.ClusterName(name)}, &cluster); err != nil {
		return err
	}
	written, err := writeKubeconfig(ctx, p, o, f, name)
	if err != nil {
		return err
	}
	title := name
	if cluster.DisplayName != "" && cluster.DisplayName != name {
		title += " (" + fault.Escape(cluster.DisplayName) + ")"
	}
	fmt.Fprintf(p.out, "Connected to %s.\n", title)
	pairs := []string{"context", written.context(name), "file", written.file}
	if cluster.State != wire.StateReachable {
		pairs = append(pairs, "state", cluster.State)
	}
	if cluster.Link != "" {
		pairs = append(pairs, "see", cluster.Link)
	}
	facts(p.out, pairs...)
	written.nextSteps(p, name)
	return nil
}
