package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/wire"
)

type clustersFlags struct{ output string }

func newClusters(p *process, o *rootOptions) *cobra.Command {
	f := &clustersFlags{}
	c := &cobra.Command{
		Use: "clusters", Aliases: []string{"cluster", "ls"},
		Short: "List the clusters that you may see",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runClusters(c.Context(), p, o, f) },
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "one of wide, json, yaml, name")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func runClusters(ctx context.Context, p *process, o *rootOptions, f *clustersFlags) error {
	if err := oneOf("output", f.output, "", "wide", "json", "yaml", "name"); err != nil {
		return err
	}
	var list wire.ClusterList
	if err := p.ask(ctx, o, agent.OpClusters, nil, &list); err != nil {
		return err
	}
	list.Clusters = slices.DeleteFunc(list.Clusters, func(c wire.Cluster) bool { return c.Hidden })
	switch f.output {
	case "json", "yaml":
		return printStructured(p.out, f.output, list)
	case "name":
		for _, c := range list.Clusters {
			fmt.Fprintln(p.out, fault.Escape(string(c.Name)))
		}
		return nil
	}
	if len(list.Clusters) == 0 {
		fmt.Fprintln(p.err, "No clusters: none of your roles has a policy for one.")
		return nil
	}
	t := newTable(p.out)
	wide := f.output == "wide"
	head := []string{"NAME", "STATE", "ACCESS", "POLICY", "ROLES"}
	if wide {
		head = append(head, "DISPLAY NAME", "DESCRIPTION", "LINK", "PORT", "LABELS", "UID")
	}
	t.row(head...)
	for _, c := range list.Clusters {
		row := []string{string(c.Name), c.State, c.Access, c.Policy, join(c.Roles)}
		if wide {
			row = append(row, c.DisplayName, c.Description, c.Link, portOf(c), labels(c.Labels), string(c.UID))
		}
		t.row(row...)
	}
	t.flush()
	return nil
}

func join(roles []wire.Role) string {
	s := make([]string, 0, len(roles))
	for _, r := range roles {
		s = append(s, string(r))
	}
	return strings.Join(s, ",")
}

func portOf(c wire.Cluster) string {
	switch {
	case c.ListenPort == 0:
		return ""
	case c.ListenPortFixed:
		return fmt.Sprintf("%d (fixed)", c.ListenPort)
	default:
		return fmt.Sprint(c.ListenPort)
	}
}

func labels(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// completeClusters offers names from what the profile has pinned: a shell that
// waits for Tab must not start an agent.
func completeClusters(p *process, o *rootOptions) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		home, err := profile.Find(p.env)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		known, err := home.Choose(profile.Name(o.profile))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, n := range sortedClusters(known) {
			names = append(names, string(n))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func sortedClusters(p *profile.Profile) []wire.ClusterName {
	names := make([]wire.ClusterName, 0, len(p.Clusters))
	for n := range p.Clusters {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
