package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/kubeconfig"
)

type logoutFlags struct{ forget bool }

func newLogout(p *process, o *rootOptions) *cobra.Command {
	f := &logoutFlags{}
	c := &cobra.Command{
		Use:   "logout",
		Short: "End the session here, at the gateway and at the identity provider",
		Long: `Ends the session: the gateway cuts its connections and refuses its
certificate, the identity provider revokes its refresh token, the tunnel stops,
and the contexts of its clusters leave the kubeconfig files that zt has written.

The gateway stays known and this device stays the same device, unless --forget.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runLogout(c.Context(), p, o, f) },
	}
	c.Flags().BoolVar(&f.forget, "forget", false, "also forget the gateway and the device key")
	return c
}

func runLogout(ctx context.Context, p *process, o *rootOptions, f *logoutFlags) error {
	var res agent.LogoutResult
	if err := p.ask(ctx, o, agent.OpLogout, agent.LogoutArgs{Forget: f.forget}, &res); err != nil {
		return err
	}
	if res.WasLoggedIn {
		fmt.Fprintf(p.out, "Logged out of %s.\n", res.Profile)
	} else {
		fmt.Fprintf(p.out, "Nobody was logged in to %s.\n", res.Profile)
	}
	for _, file := range res.Kubeconfigs {
		// The session is over whatever becomes of the files.
		done, err := kubeconfig.Remove(ctx, file, string(res.Profile))
		switch {
		case err != nil:
			fmt.Fprintf(p.err, "zt: contexts stay in %s: %s\n", file, fault.Of(err).What)
		case done.Changed:
			fmt.Fprintf(p.out, "Contexts removed from %s.\n", file)
		}
	}
	if res.Issuer != "" {
		fmt.Fprintf(p.err, "zt: the identity provider still knows this login: %s\n", res.Issuer)
	}
	if res.Gateway != "" {
		return fault.New(fault.ExitUnreachable, "if this computer is lost, ask an administrator to revoke the session",
			"the gateway was not told, the session's certificate ends by itself at %s: %s", until(p.now(), res.Until), res.Gateway)
	}
	return nil
}
