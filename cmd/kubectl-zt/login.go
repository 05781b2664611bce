package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
)

type loginFlags struct {
	deviceCode bool
	force      bool
}

func newLogin(p *process, o *rootOptions) *cobra.Command {
	f := &loginFlags{}
	c := &cobra.Command{
		Use:   "login [https://GATEWAY[#sha256=PIN]]",
		Short: "Sign in, and get to know a gateway the first time",
		Long: `Signs in at the identity provider of a gateway and opens a session.

With a URL the gateway becomes the current one. A gateway whose certificate this
computer cannot verify by itself is given with the pin that zt-gateway init has
printed; nothing is trusted on first use.

Without a display, or over SSH, the login is done by a code on another device
where the gateway allows that.`,
		Example: `  kubectl zt login https://gw.example.com
  kubectl zt login 'https://10.0.0.5:8443#sha256=8d4f…'
  kubectl zt login --device-code`,
		Args: atMostOne("https://GATEWAY[#sha256=PIN]"),
		RunE: func(c *cobra.Command, args []string) error {
			url := ""
			if len(args) > 0 {
				url = args[0]
			}
			return runLogin(c.Context(), p, o, f, url)
		},
	}
	c.Flags().BoolVar(&f.deviceCode, "device-code", false, "sign in by a code on another device")
	c.Flags().BoolVar(&f.force, "force", false, "sign in again although there is a session")
	return c
}

func runLogin(ctx context.Context, p *process, o *rootOptions, f *loginFlags, url string) error {
	var was profile.Name
	if url != "" {
		met, err := meet(ctx, p, o, url, false)
		if err != nil {
			return err
		}
		o.profile, was = string(met.Profile), met.Was
	}
	res, err := login(ctx, p, o, f)
	if err != nil {
		return err
	}
	if res.Already {
		fmt.Fprintf(p.out, "Already logged in to %s as %s.\n", res.Status.Domain, fault.Escape(string(res.Status.User)))
	} else {
		fmt.Fprintf(p.out, "Logged in to %s as %s.\n", res.Status.Domain, fault.Escape(string(res.Status.User)))
	}
	st := res.Status
	facts(p.out,
		"session", "until "+until(p.now(), st.SessionUntil),
		"device", deviceFact(st),
		"clusters", strconv.Itoa(st.Clusters),
	)
	sayCurrent(p, profile.Name(st.Profile), cmp.Or(was, res.Was))
	if res.Already {
		fmt.Fprintln(p.out, "To sign in again: kubectl zt login --force")
	} else {
		fmt.Fprintln(p.out, "Next: kubectl zt clusters, kubectl zt connect CLUSTER")
	}
	return nil
}

// sayCurrent tells a person that commands mean another profile from now on.
func sayCurrent(p *process, now, was profile.Name) {
	if was != "" && was != now {
		fmt.Fprintf(p.out, "Commands without --profile now mean %s; it was %s.\n", now, was)
	}
}

// login asks the agent for a session, by the means that this terminal has.
func login(ctx context.Context, p *process, o *rootOptions, f *loginFlags) (agent.LoginResult, error) {
	var res agent.LoginResult
	args := agent.LoginArgs{DeviceCode: f.deviceCode || offerDeviceCode(p, o), Offered: !f.deviceCode, Force: f.force || f.deviceCode}
	err := p.ask(ctx, o, agent.OpLogin, args, &res)
	return res, err
}

// offerDeviceCode decides for people on SSH or without a display, where the
// gateway has said that it allows device codes.
func offerDeviceCode(p *process, o *rootOptions) bool {
	if p.browser.Usable() == nil {
		return false
	}
	home, err := profile.Find(p.env)
	if err != nil {
		return false
	}
	known, err := home.Choose(profile.Name(o.profile))
	return err == nil && known.OIDC.DeviceCode
}

// meet is first contact with the gateway at a URL. What has changed about a known
// one is shown and refused, unless accept.
func meet(ctx context.Context, p *process, o *rootOptions, url string, accept bool) (agent.TrustResult, error) {
	var res agent.TrustResult
	gateway, pin, err := profile.ParseGateway(url)
	if err != nil {
		return res, err
	}
	args := agent.TrustArgs{Gateway: gateway, Pin: pin, Name: profile.Name(o.profile), Accept: accept}
	if err := p.ask(ctx, o, agent.OpTrust, args, &res); err != nil {
		return res, err
	}
	if !res.Saved {
		return res, changed(res)
	}
	if res.New {
		fmt.Fprintf(p.err, "zt: new gateway %s\n", fault.Escape(res.Gateway))
	}
	return res, nil
}

// changed is the refusal of a gateway that is not what it was.
func changed(res agent.TrustResult) error {
	what := ""
	for i, c := range res.Changes {
		if i > 0 {
			what += "; "
		}
		what += c
	}
	return fault.New(fault.ExitUntrusted, "if its administrator confirms it: kubectl zt trust '"+res.Gateway+"'", "the gateway is not what it was: %s", what)
}
