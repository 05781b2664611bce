package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
)

// versionInfo is the output of `version -o json`.
type versionInfo struct {
	Client   string `json:"client"`
	Protocol int    `json:"protocol"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Agent is empty when none is running.
	Agent string `json:"agent,omitempty"`
}

func newVersion(p *process, o *rootOptions) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the running agent",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runVersion(c.Context(), p, o, output) },
	}
	c.Flags().StringVarP(&output, "output", "o", "", "one of json, yaml")
	return c
}

func runVersion(ctx context.Context, p *process, o *rootOptions, output string) error {
	if err := oneOf("output", output, "", "json", "yaml"); err != nil {
		return err
	}
	info := versionInfo{Client: version, Protocol: agent.Protocol, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	c, err := p.client(o)
	if err != nil {
		return err
	}
	c.NoSpawn = true
	var st agent.StatusResult
	switch err := c.Get(ctx, p.request(o, agent.OpStatus), nil, &st); {
	case err == nil:
		info.Agent = st.Version
	case !errors.Is(err, agent.ErrNoAgent):
		return err
	}
	if output != "" {
		return printStructured(p.out, output, info)
	}
	fmt.Fprintf(p.out, "kubectl-zt %s (%s, %s)\n", info.Client, info.Platform, info.Go)
	switch info.Agent {
	case "":
		fmt.Fprintln(p.out, "agent      not running")
	default:
		fmt.Fprintf(p.out, "agent      %s\n", info.Agent)
	}
	return nil
}
