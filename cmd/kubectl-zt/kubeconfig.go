package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/kubeconfig"
	"github.com/kube-zt/zt/pkg/wire"
)

type kubeconfigFlags struct {
	merge     bool
	file      string
	overwrite bool
}

func (f *kubeconfigFlags) bind(c *cobra.Command) {
	c.Flags().BoolVar(&f.merge, "merge", false, "write into your own kubeconfig and leave the rest of it as it is")
	c.Flags().StringVar(&f.file, "file", "", "write into this file (default ~/.kube/zt)")
	c.Flags().BoolVar(&f.overwrite, "overwrite", false, "replace zt's entries whole, your changes in them too, after a backup")
}

func newKubeconfig(p *process, o *rootOptions) *cobra.Command {
	f := &kubeconfigFlags{}
	c := &cobra.Command{
		Use:   "kubeconfig [CLUSTER…]",
		Short: "Write contexts for kubectl",
		Long: `Writes one context per cluster, named as the cluster, into ~/.kube/zt, a file of
its own (mode 0600). What you have changed in an entry, such as its namespace,
stays. Hidden clusters are written when they are named.

  export KUBECONFIG=~/.kube/zt:~/.kube/config`,
		ValidArgsFunction: completeClusters(p, o),
		RunE: func(c *cobra.Command, args []string) error {
			written, err := writeKubeconfig(c.Context(), p, o, f, args...)
			if err != nil {
				return err
			}
			written.report(p)
			return nil
		},
	}
	f.bind(c)
	return c
}

// written is a kubeconfig after zt has been at it.
type written struct {
	kubeconfig.Result
	file   string
	merged bool
	access agent.AccessResult
	// gone are users of clusters that are no more, refreshed the other files that
	// were brought up to date.
	gone, refreshed []string
}

// writeKubeconfig asks the agent for port and secret, which it gives only once
// the port is bound and proven to be its own, and writes them down.
func writeKubeconfig(ctx context.Context, p *process, o *rootOptions, f *kubeconfigFlags, names ...string) (*written, error) {
	file, err := f.path(p)
	if err != nil {
		return nil, err
	}
	args := agent.AccessArgs{File: file}
	for _, n := range names {
		args.Clusters = append(args.Clusters, wire.ClusterName(n))
	}
	w := &written{file: file, merged: f.merge}
	if err := p.ask(ctx, o, agent.OpAccess, args, &w.access); err != nil {
		return nil, err
	}
	opts := kubeconfig.Options{Overwrite: f.overwrite, Now: p.now()}
	if len(names) > 0 {
		if len(names) == 1 && !f.merge {
			opts.Current = names[0] + "." + w.access.Domain
		}
		w.Result, err = kubeconfig.Update(ctx, file, w.entries(p, w.access.Clusters), opts)
		return w, err
	}
	owned, err := kubeconfig.Owned(file, string(w.access.Profile))
	if err != nil {
		return nil, err
	}
	entries := append(w.entries(p, w.access.Clusters), standing(w.entries(p, w.access.Hidden), owned)...)
	if w.Result, err = kubeconfig.Update(ctx, file, entries, opts); err != nil {
		return nil, err
	}
	if err := w.prune(ctx, file, owned); err != nil {
		return nil, err
	}
	if f.file == "" && !f.merge {
		w.refresh(ctx, p, opts)
	}
	return w, nil
}

// entries are what stands in a kubeconfig for some clusters.
func (w *written) entries(p *process, clusters []agent.AccessEntry) []kubeconfig.Entry {
	proxy := url.URL{Scheme: "http", User: url.UserPassword(string(w.access.Profile), w.access.Secret), Host: fmt.Sprintf("127.0.0.1:%d", w.access.Port)}
	var entries []kubeconfig.Entry
	for _, c := range clusters {
		entries = append(entries, kubeconfig.Entry{
			Context: string(c.Name), Host: c.Host, CA: c.CA, ProxyURL: proxy.String(),
			Command: p.binary, Profile: string(w.access.Profile), Cluster: string(c.Name),
		})
	}
	return entries
}

// standing are the entries that a file holds already.
func standing(entries []kubeconfig.Entry, owned map[string]string) []kubeconfig.Entry {
	return slices.DeleteFunc(entries, func(e kubeconfig.Entry) bool { return owned[e.Host] != e.Cluster })
}

// prune takes out what the file holds of clusters that are no more. One that the
// gateway still names, hidden or not to be vouched for, is not gone.
func (w *written) prune(ctx context.Context, file string, owned map[string]string) error {
	there := map[string]bool{}
	for _, c := range slices.Concat(w.access.Clusters, w.access.Hidden) {
		there[string(c.Name)] = true
	}
	for _, c := range w.access.Refused {
		there[string(c.Name)] = true
	}
	var gone []string
	for user, cluster := range owned {
		if !there[cluster] {
			gone = append(gone, user)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	res, err := kubeconfig.RemoveUsers(ctx, file, string(w.access.Profile), gone...)
	if err == nil && file == w.file {
		w.Current, w.Changed = res.Current, w.Changed || res.Changed
	}
	w.gone = append(w.gone, gone...)
	return err
}

// refresh brings up to date what the profile's other files hold: a new port has
// made their secrets worthless. Nothing is added to them.
func (w *written) refresh(ctx context.Context, p *process, opts kubeconfig.Options) {
	all := slices.Concat(w.access.Clusters, w.access.Hidden)
	for _, file := range w.access.Kubeconfigs {
		if file == w.file {
			continue
		}
		owned, err := kubeconfig.Owned(file, string(w.access.Profile))
		if err == nil && len(owned) == 0 {
			continue
		}
		var res kubeconfig.Result
		if entries := standing(w.entries(p, all), owned); err == nil && len(entries) > 0 {
			res, err = kubeconfig.Update(ctx, file, entries, opts)
		}
		if err == nil {
			err = w.prune(ctx, file, owned)
		}
		switch {
		case err != nil:
			fmt.Fprintf(p.err, "zt: contexts in %s are left as they are: %s\n", file, fault.Of(err).What)
		case res.Changed:
			w.refreshed = append(w.refreshed, file)
		}
	}
}

// path is the file to write: zt's own, the first of kubectl's, or a given one.
func (f *kubeconfigFlags) path(p *process) (string, error) {
	switch {
	case f.file != "" && f.merge:
		return "", usage("leave --merge out", "--file and --merge name two files")
	case f.file != "":
		if filepath.IsAbs(f.file) {
			return f.file, nil
		}
		dir, err := p.getwd()
		return filepath.Join(dir, f.file), err
	}
	own, err := ownFile(p)
	if err != nil || !f.merge {
		return own, err
	}
	for _, file := range filepath.SplitList(p.env("KUBECONFIG")) {
		if file != "" && file != own {
			return file, nil
		}
	}
	return filepath.Join(filepath.Dir(own), "config"), nil
}

func ownFile(p *process) (string, error) {
	home := p.env("HOME")
	if home == "" {
		return "", fault.New(fault.ExitFailed, "use --file", "HOME is not set")
	}
	return filepath.Join(home, ".kube", "zt"), nil
}

// context is the name under which a cluster stands in the file.
func (w *written) context(cluster string) string {
	if name := w.Contexts[cluster+"."+w.access.Domain]; name != "" {
		return name
	}
	return cluster
}

func (w *written) report(p *process) {
	for _, r := range w.access.Refused {
		fmt.Fprintf(p.err, "zt: %s is left out: %s\n", fault.Escape(string(r.Name)), r.Why.What)
		for _, h := range r.Why.Hints {
			fmt.Fprintf(p.err, "hint: %s\n", h)
		}
	}
	if len(w.gone) > 0 {
		slices.Sort(w.gone)
		fmt.Fprintf(p.out, "Removed, for there is no such cluster any more: %s\n", fault.Escape(strings.Join(slices.Compact(w.gone), ", ")))
	}
	for _, file := range w.refreshed {
		fmt.Fprintf(p.out, "Brought up to date: %s\n", file)
	}
	if len(w.access.Clusters) == 0 {
		if len(w.access.Refused) == 0 {
			fmt.Fprintln(p.err, "No clusters: none of your roles has a policy for one.")
		}
		return
	}
	names := w.names()
	if w.Changed {
		fmt.Fprintf(p.out, "Wrote %s to %s.\n", plural(len(names), "context"), w.file)
	} else {
		fmt.Fprintf(p.out, "%s in %s, up to date.\n", plural(len(names), "context"), w.file)
	}
	facts(p.out, "contexts", strings.Join(names, ", "), "current", w.Current, "backup", w.Backup)
	w.nextSteps(p, "")
}

// names are the contexts that were asked for.
func (w *written) names() []string {
	return slices.Sorted(maps.Values(w.Contexts))
}

// nextSteps says what is left to do until kubectl gets to the cluster, or without
// one to any: the current context, unless that is none of zt's.
func (w *written) nextSteps(p *process, cluster string) {
	loaded := w.merged && p.env("KUBECONFIG") == "" || slices.Contains(filepath.SplitList(p.env("KUBECONFIG")), w.file)
	name, names := w.Current, w.names()
	switch {
	case cluster != "":
		name = w.context(cluster)
	case len(names) == 0:
		return
	case !slices.Contains(names, name):
		name = names[0]
	}
	switch {
	case !loaded:
		fmt.Fprintf(p.out, "Next: export KUBECONFIG=%s\n", w.file)
		if name != w.Current {
			fmt.Fprintf(p.out, "      kubectl --context %s get pods\n", name)
		} else {
			fmt.Fprintln(p.out, "      kubectl get pods")
		}
	case name != w.Current:
		fmt.Fprintf(p.out, "Next: kubectl --context %s get pods\n", name)
	default:
		fmt.Fprintln(p.out, "Next: kubectl get pods")
	}
}
