package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
)

type statusFlags struct{ output string }

func newStatus(p *process, o *rootOptions) *cobra.Command {
	f := &statusFlags{}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show who is logged in where, and how the tunnel is",
		Long:  "Shows who is logged in where, and how the tunnel is.\n\nExits with 3 when nobody is logged in to the gateway in question.",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runStatus(c.Context(), p, o, f) },
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "one of json, yaml")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runStatus(ctx context.Context, p *process, o *rootOptions, f *statusFlags) error {
	if err := oneOf("output", f.output, "", "json", "yaml"); err != nil {
		return err
	}
	if o.profile != "" {
		home, err := profile.Find(p.env)
		if err != nil {
			return err
		}
		if _, err := home.Choose(profile.Name(o.profile)); err != nil {
			return err // somebody asks about a gateway that nobody knows
		}
	}
	var res agent.StatusResult
	if err := p.ask(ctx, o, agent.OpStatus, nil, &res); err != nil {
		return err
	}
	if f.output != "" {
		if err := printStructured(p.out, f.output, res); err != nil {
			return err
		}
	} else {
		printStatus(p, res)
	}
	wanted := o.profile
	if wanted == "" {
		wanted = string(res.Current)
	}
	for _, s := range res.Sessions {
		if s.LoggedIn && (s.Profile == wanted || wanted == "") {
			return nil
		}
	}
	if len(res.Sessions) == 0 {
		return fault.New(fault.ExitLogin, "kubectl zt login https://GATEWAY", "no gateway is known yet")
	}
	if f.output == "" {
		return fault.New(fault.ExitLogin, "kubectl zt login", "nobody is logged in to %s", wanted)
	}
	return silently(fault.ExitLogin)
}

// silently is an exit code without a word: the document has said it all.
func silently(code exit) error { return &fault.Fault{Exit: code, Told: true} }

func printStatus(p *process, res agent.StatusResult) {
	for i, s := range res.Sessions {
		if i > 0 {
			fmt.Fprintln(p.out)
		}
		mark := ""
		if s.Profile == string(res.Current) && len(res.Sessions) > 1 {
			mark = " (current)"
		}
		fmt.Fprintf(p.out, "%s%s\n", fault.Escape(s.Profile), mark)
		facts(p.out, sessionFacts(p, s)...)
	}
	if len(res.Sessions) > 0 {
		fmt.Fprintln(p.out)
		fmt.Fprintln(p.out, "agent")
		pairs := []string{"version", fmt.Sprintf("%s, process %d, since %s", res.Version, res.PID, res.Started.Local().Format("Jan 2 15:04"))}
		for _, port := range res.Ports {
			how := ""
			switch {
			case port.Problem != "":
				how = " not served: " + port.Problem
			case port.Open:
				how = " open to this user"
			}
			pairs = append(pairs, "tunnel", port.Address+how)
		}
		facts(p.out, pairs...)
	}
}

// deviceFact says also why a session does not have the device's roles.
func deviceFact(s session.Status) string {
	if s.DeviceTier == tierNone {
		return string(s.Device) + " (none: signed in by a code, which this device does not vouch for; for its roles: kubectl zt login --force)"
	}
	return string(s.Device) + " (" + s.DeviceTier + ")"
}

// tierNone is the tier of a session that no device stands behind.
const tierNone = "none"

func sessionFacts(p *process, s session.Status) []string {
	pairs := []string{"gateway", s.Gateway}
	if !s.LoggedIn {
		who := "nobody"
		if s.Why != "" {
			who += ": " + s.Why
		}
		return append(pairs, "user", who, "device", deviceFact(s), "clock", s.ClockSkew)
	}
	edge := s.Edge
	if s.Connections > 0 {
		edge += ", " + plural(s.Streams, "stream") + " on " + plural(s.Connections, "connection")
	}
	control := s.Control
	if control == "connected" {
		control = ""
	}
	return append(
		pairs,
		"user", string(s.User),
		"session", "until "+until(p.now(), s.SessionUntil),
		"certificate", "until "+until(p.now(), s.CertificateUntil)+", renewed by itself",
		"device", deviceFact(s),
		"edge", edge,
		"control", control,
		"clusters", fmt.Sprint(s.Clusters),
		"clock", s.ClockSkew,
	)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprint(n) + " " + what + "s"
}
