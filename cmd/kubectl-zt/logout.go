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
	c, err := p.client(o)
	if err != nil {
		return err
	}
	defer o.status.clear()
	// Told after the end of the session, which is what the person asked for.
	var removed, stay []string
	c.Clean = func(ctx context.Context, what agent.Cleaning) (cleaned []string) {
		for _, file := range what.Files {
			done, err := kubeconfig.Remove(ctx, file, string(what.Profile))
			if err != nil {
				stay = append(stay, fmt.Sprintf("zt: contexts stay in %s: %s", file, fault.Of(err).What))
				continue
			}
			cleaned = append(cleaned, file)
			if done.Changed {
				removed = append(removed, file)
			}
		}
		return cleaned
	}
	var res agent.LogoutResult
	if err := c.Get(ctx, p.request(o, agent.OpLogout), agent.LogoutArgs{Forget: f.forget}, &res); err != nil {
		return err
	}
	o.status.clear()
	if res.WasLoggedIn {
		fmt.Fprintf(p.out, "Logged out of %s.\n", res.Profile)
	} else {
		fmt.Fprintf(p.out, "Nobody was logged in to %s.\n", res.Profile)
	}
	for _, file := range removed {
		fmt.Fprintf(p.out, "Contexts removed from %s.\n", file)
	}
	for _, text := range stay {
		fmt.Fprintln(p.err, text)
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
