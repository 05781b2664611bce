package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/wire"
)

type trustFlags struct {
	yes     bool
	cluster string
}

func newTrust(p *process, o *rootOptions) *cobra.Command {
	f := &trustFlags{}
	c := &cobra.Command{
		Use:   "trust [https://GATEWAY[#sha256=PIN]]",
		Short: "Show what is trusted, or accept a gateway or a change of it",
		Long: `Without arguments: shows what this computer knows its gateways and clusters by.

With a URL: gets to know that gateway, or looks at a known one again. What has
changed is shown and taken over only after a yes. With --cluster: accepts the new
identity of a cluster that was made anew.`,
		Args: atMostOne("https://GATEWAY[#sha256=PIN]"),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case f.cluster != "" && len(args) > 0:
				return usage("kubectl zt trust --cluster "+f.cluster, "--cluster and a gateway are two things")
			case f.cluster != "":
				return runRepin(c.Context(), p, o, f)
			case len(args) > 0:
				return runTrust(c.Context(), p, o, f, args[0])
			default:
				return showTrust(p, o)
			}
		},
	}
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "accept without being asked")
	c.Flags().StringVar(&f.cluster, "cluster", "", "accept the new identity of this cluster")
	_ = c.RegisterFlagCompletionFunc("cluster", completeClusters(p, o))
	return c
}

func runTrust(ctx context.Context, p *process, o *rootOptions, f *trustFlags, url string) error {
	gateway, pin, err := profile.ParseGateway(url)
	if err != nil {
		return err
	}
	args := agent.TrustArgs{Gateway: gateway, Pin: pin, Name: profile.Name(o.profile)}
	var res agent.TrustResult
	if err := p.ask(ctx, o, agent.OpTrust, args, &res); err != nil {
		return err
	}
	if !res.Saved {
		fmt.Fprintf(p.err, "The gateway of %s has changed:\n", res.Profile)
		for _, c := range res.Changes {
			fmt.Fprintf(p.err, "  %s\n", c)
		}
		if !f.yes {
			switch err := confirm(ctx, p, "Trust it as it is now?"); {
			case errors.Is(err, errDeclined):
				return fault.New(fault.ExitUntrusted, "if its administrator confirms it: kubectl zt trust --yes '"+url+"'", "nothing was changed")
			case err != nil:
				return err
			}
		}
		args.Accept = true
		if err := p.ask(ctx, o, agent.OpTrust, args, &res); err != nil {
			return err
		}
	}
	verb := "Trusted already"
	if res.New || len(res.Changes) > 0 {
		verb = "Trusted"
	}
	fmt.Fprintf(p.out, "%s: %s\n", verb, res.Profile)
	facts(p.out, "gateway", res.Gateway, "authority", res.Fingerprint, "known by", knownBy(res.Pinned), "issuer", string(res.Issuer), "domain", res.TrustDomain)
	sayCurrent(p, res.Profile, res.Was)
	if res.New {
		fmt.Fprintln(p.out, "Next: kubectl zt login")
	}
	return nil
}

func knownBy(pinned bool) string {
	if pinned {
		return "the pin that you gave"
	}
	return "its public certificate"
}

// runRepin shows what is to be compared before it asks, and accepts that and
// nothing that came meanwhile.
func runRepin(ctx context.Context, p *process, o *rootOptions, f *trustFlags) error {
	args := agent.RepinArgs{Cluster: wire.ClusterName(f.cluster)}
	var res agent.RepinResult
	if err := p.ask(ctx, o, agent.OpRepin, args, &res); err != nil {
		return err
	}
	if res.Old == res.New {
		fmt.Fprintf(p.out, "Cluster %s is what it was: %s\n", f.cluster, fault.Escape(res.New.Fingerprint))
		return nil
	}
	fmt.Fprintf(p.err, "Cluster %s has changed:\n", f.cluster)
	facts(p.err, "was", identity(res.Old), "is", identity(res.New))
	if !f.yes {
		switch err := confirm(ctx, p, "Has its administrator confirmed that it was made anew and is this one?"); {
		case errors.Is(err, errDeclined):
			return fault.New(fault.ExitUntrusted, "if its administrator confirms it: kubectl zt trust --yes --cluster "+f.cluster, "nothing was changed")
		case err != nil:
			return err
		}
	}
	args.Accept = &res.New
	if err := p.ask(ctx, o, agent.OpRepin, args, &res); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "Cluster %s is now known by %s\nNext: %s\n", f.cluster, fault.Escape(res.New.Fingerprint), o.next(p, "kubectl zt kubeconfig"))
	return nil
}

func identity(id session.ClusterIdentity) string {
	if id.Fingerprint == "" {
		return "unknown"
	}
	return id.Fingerprint + ", uid " + string(id.UID)
}

// showTrust reads the profiles from disk: it needs nobody.
func showTrust(p *process, o *rootOptions) error {
	home, err := profile.Find(p.env)
	if err != nil {
		return err
	}
	names, err := home.List()
	if err != nil {
		return err
	}
	if o.profile != "" {
		names = []profile.Name{profile.Name(o.profile)}
	}
	if len(names) == 0 {
		return fault.New(fault.ExitLogin, "kubectl zt login https://GATEWAY", "no gateway is known yet")
	}
	for i, n := range names {
		known, err := home.Load(n)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(p.out)
		}
		fmt.Fprintln(p.out, n)
		pairs := []string{
			"gateway", known.Gateway, "authority", session.Fingerprint(known.GatewayCA), "known by", knownBy(known.Pin != ""),
			"issuer", string(known.OIDC.Issuer), "client", known.OIDC.ClientID, "domain", known.TrustDomain,
		}
		for _, c := range sortedClusters(known) {
			pairs = append(pairs, "cluster "+string(c), session.Fingerprint(known.Clusters[c].CA))
		}
		facts(p.out, pairs...)
	}
	return nil
}
