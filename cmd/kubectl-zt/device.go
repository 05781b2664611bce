package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

func newDevice(p *process, o *rootOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "device",
		Short: "Enrol this computer, or see how it is known",
		Args:  aVerb,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },

		SuggestionsMinimumDistance: 2,
	}
	var output string
	status := &cobra.Command{
		Use:   "status",
		Short: "Show this computer's device id and what the gateway knows of it",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runDeviceStatus(c.Context(), p, o, output) },
	}
	status.Flags().StringVarP(&output, "output", "o", "", "one of json, yaml")
	c.AddCommand(
		&cobra.Command{
			Use:   "enroll",
			Short: "Ask for this computer to be admitted",
			Long: `Shows this computer's key to the gateway, and you to your identity provider, so
that an administrator can see whose computer asks to be admitted.`,
			Aliases: []string{"enrol"},
			Args:    noArgs,
			RunE:    func(c *cobra.Command, _ []string) error { return runEnroll(c.Context(), p, o) },
		},
		status,
	)
	return c
}

func runEnroll(ctx context.Context, p *process, o *rootOptions) error {
	var state wire.DeviceState
	if err := p.ask(ctx, o, agent.OpEnroll, nil, &state); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "Device %s is %s.\n", fault.Escape(string(state.ID)), fault.Escape(phase(state.Phase)))
	printDevice(p, state)
	if state.Phase == "Approved" {
		fmt.Fprintln(p.out, "Next: "+o.next(p, "kubectl zt login"))
	} else {
		fmt.Fprintf(p.out, "Next: give the device id %s to your administrator; after the approval: %s\n", fault.Escape(string(state.ID)), o.next(p, "kubectl zt login"))
	}
	return nil
}

func phase(s string) string {
	switch s {
	case "Pending":
		return "enrolled and waits for approval"
	case "Approved":
		return "approved"
	case "Revoked":
		return "revoked"
	}
	return s
}

func printDevice(p *process, s wire.DeviceState) {
	facts(p.out, "owner", string(s.Owner), "tier", s.Tier, "ownership", s.Ownership)
}

func runDeviceStatus(ctx context.Context, p *process, o *rootOptions, output string) error {
	if err := oneOf("output", output, "", "json", "yaml"); err != nil {
		return err
	}
	var res agent.DeviceResult
	if err := p.ask(ctx, o, agent.OpDevice, nil, &res); err != nil {
		return err
	}
	if output != "" {
		return printStructured(p.out, output, res)
	}
	fmt.Fprintf(p.out, "Device %s\n", fault.Escape(string(res.ID)))
	facts(p.out, "key", string(res.Thumbprint), "kept in", keptIn(res.Tier))
	if res.Gateway == nil {
		fmt.Fprintln(p.out, "What the gateway knows of it shows after: "+o.next(p, "kubectl zt login"))
		return nil
	}
	fmt.Fprintf(p.out, "At the gateway it is %s.\n", fault.Escape(phase(res.Gateway.Phase)))
	printDevice(p, *res.Gateway)
	return nil
}

func keptIn(tier string) string {
	if tier == "software" {
		return "a file of this user (software)"
	}
	return tier
}
