package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
)

// agentMain is the agent itself when it was spawned or inherits; what a person
// types goes to the command tree.
func agentMain(p *process, args []string) exit {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case slices.Equal(args, []string{"--spawned"}):
		return serveAgent(ctx, p, nil, agent.Ready)
	case slices.Equal(args, []string{"--inherit"}):
		in, err := agent.Inherit()
		if err != nil {
			agent.Inherited(err)
			return fault.ExitFailed
		}
		return serveAgent(ctx, p, in, agent.Inherited)
	}
	return execute(ctx, p, append([]string{"agent"}, args...))
}

// serveAgent is the agent's life. tell hears how it began, once.
func serveAgent(ctx context.Context, p *process, in *agent.Inheritance, tell func(error)) exit {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE) // of terminals and clients that go
	home, err := profile.Find(p.env)
	if err != nil {
		tell(err)
		return fault.Of(err).Exit
	}
	a := agent.New(agent.Config{
		Home: home, Version: version, Binary: p.binary, Log: p.err, Debug: p.env("ZT_DEBUG") != "", Environment: networkEnvironment(),
	})
	begun := false
	err = a.Run(ctx, in, func() {
		begun = true
		tell(nil)
	})
	switch {
	case !begun && errors.Is(err, agent.ErrRunning):
		tell(nil) // somebody else was quicker: its socket is there
		return 0
	case !begun:
		tell(err)
	}
	if err == nil {
		return 0
	}
	return fault.Of(err).Exit
}

func newAgentHelp(p *process, o *rootOptions) *cobra.Command {
	var stop bool
	c := &cobra.Command{
		Use:   "agent",
		Short: "Start or stop the background process that holds your session",
		Long: `The agent is started by the first command that needs it and keeps what is secret
in its memory. Stopping it ends every session on this computer that is not logged
out at the gateway until its certificate ends: use kubectl zt logout for that.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runAgent(c.Context(), p, o, stop) },
	}
	c.Flags().BoolVar(&stop, "stop", false, "stop it")
	return c
}

func runAgent(ctx context.Context, p *process, o *rootOptions, stop bool) error {
	c, err := p.client(o)
	if err != nil {
		return err
	}
	if stop {
		c.NoSpawn = true
		_, err := c.Do(ctx, p.request(o, agent.OpStop), nil)
		if errors.Is(err, agent.ErrNoAgent) {
			fmt.Fprintln(p.out, "No agent is running.")
			return nil
		}
		if err == nil {
			fmt.Fprintln(p.out, "Stopped.")
		}
		return err
	}
	var st agent.StatusResult
	if err := c.Get(ctx, p.request(o, agent.OpStatus), nil, &st); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "The agent runs (version %s, process %d).\n", st.Version, st.PID)
	return nil
}
