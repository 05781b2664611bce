package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/wire"
)

type tunnelFlags struct {
	env, open, close bool
	port             int
	listen           string
	remote           bool
}

func newTunnel(p *process, o *rootOptions) *cobra.Command {
	f := &tunnelFlags{}
	c := &cobra.Command{
		Use:   "tunnel [CLUSTER]",
		Short: "Use the tunnel by hand, with HTTPS_PROXY",
		Long: `The contexts that zt writes use the tunnel by themselves. For everything else:

  eval "$(kubectl zt tunnel --env)"       this shell, by a URL with a secret in it
  kubectl zt tunnel --open                a port without a secret, for your own
                                          processes on this computer only
  https_proxy=http://localhost:8081 kubectl get pods

With a cluster the port is the one that its administrator has assigned. Without a
flag the ports are listed.`,
		Args:              atMostOne("CLUSTER"),
		ValidArgsFunction: completeClusters(p, o),
		RunE: func(c *cobra.Command, args []string) error {
			cluster := ""
			if len(args) > 0 {
				cluster = args[0]
			}
			return runTunnel(c.Context(), p, o, f, cluster)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&f.env, "env", false, "print what a shell evaluates")
	flags.BoolVar(&f.open, "open", false, "open a port without a secret, for your own processes")
	flags.BoolVar(&f.close, "close", false, "close the ports that were opened")
	flags.IntVar(&f.port, "port", 0, "port to open or close (default: the cluster's, or 8081)")
	flags.StringVar(&f.listen, "listen", "", "open another IP:PORT that demands the secret")
	flags.BoolVar(&f.remote, tunnel.FlagRemote[2:], false, "allow --listen an address that other machines reach")
	return c
}

func runTunnel(ctx context.Context, p *process, o *rootOptions, f *tunnelFlags, cluster string) error {
	asked := 0
	for _, on := range []bool{f.env, f.open, f.close, f.listen != ""} {
		if on {
			asked++
		}
	}
	if asked > 1 {
		return usage("kubectl zt tunnel --help", "--env, --open, --close and --listen are four things")
	}
	if cluster != "" && asked == 0 {
		return usage("kubectl zt tunnel --open "+cluster, "ports are listed without a cluster; --open opens one for it")
	}
	if f.port < 0 || f.port > 65535 {
		return usage("--port 8081", "%d is not a port", f.port)
	}
	var res agent.TunnelResult
	args := agent.TunnelArgs{Open: f.open, Close: f.close, Cluster: wire.ClusterName(cluster), Port: f.port, Listen: f.listen, Remote: f.remote}
	if err := p.ask(ctx, o, agent.OpTunnel, args, &res); err != nil {
		return err
	}
	switch {
	case f.env:
		u := url.URL{Scheme: "http", User: url.UserPassword(string(res.Profile), res.Secret), Host: fmt.Sprintf("127.0.0.1:%d", res.Opened)}
		fmt.Fprintf(p.out, "export HTTPS_PROXY=%s\nexport https_proxy=\"$HTTPS_PROXY\"\n", u.String())
		return nil
	case f.open:
		fmt.Fprintf(p.out, "Port %d is open to your own processes on this computer.\nNext: https_proxy=http://localhost:%d kubectl get pods\n", res.Opened, res.Opened)
		return nil
	case f.close:
		fmt.Fprintln(p.out, "Closed.")
		return nil
	}
	t := newTable(p.out)
	t.row("ADDRESS", "FOR", "PROBLEM")
	for _, port := range res.Ports {
		who := "who shows the secret"
		if port.Open {
			who = "your own processes"
		}
		t.row(port.Address, who, port.Problem)
	}
	t.flush()
	return nil
}
