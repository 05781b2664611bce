package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/kube-zt/zt/test/bench/report"
)

// runCommands counts connections: client-go does not share them between its
// clients when there is a proxy, and each one behind zt is a CONNECT with a
// handshake of its own.
func runCommands(ctx context.Context, b *bench) error {
	// The relay gives each seat a port of its own, also in front of the API server.
	apart := func(ctx context.Context, addr string) (string, error) {
		if b.zt != nil && addr == b.zt.stack.Address {
			return addr, nil
		}
		return b.relay(ctx, addr, 0)
	}
	seats, err := b.seats(ctx, apart, direct, daisy, ztTunnel)
	if err != nil {
		return err
	}
	helm, err := b.helm(ctx)
	if err != nil {
		return err
	}
	manifest := filepath.Join(b.dir, "manifest.yaml")
	if err := os.WriteFile(manifest, []byte(twoObjects), 0o600); err != nil {
		return err
	}
	section := &report.Section{
		Title:   "Connections per command",
		Note:    "Connections that the command opens to the API server (`direct`) or to the laptop's proxy, each of which is a CONNECT; counted in the kernel's table.",
		Details: report.Table{Columns: []string{"command"}},
	}
	counts := make(map[string][]float64)
	var order []string
	for _, at := range seats {
		section.Details.Columns = append(section.Details.Columns, at.name)
		port, err := at.port()
		if err != nil {
			return err
		}
		note := func(name string, run func() error) error {
			n, err := countConnections(port, run)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", at.name, name, err)
			}
			if counts[name] == nil {
				order = append(order, name)
			}
			counts[name] = append(counts[name], float64(n))
			return nil
		}
		if err := b.countCommands(ctx, at, helm, manifest, note); err != nil {
			return err
		}
	}
	for _, name := range order {
		section.Details.Add(name, counts[name]...)
	}
	return b.add(section)
}

func (b *bench) countCommands(ctx context.Context, at *seat, helm, manifest string, note func(string, func() error) error) error {
	kubectl := func(name string, args ...string) error {
		return note(name, func() error { return at.run(ctx, args...) })
	}
	if err := at.forget(); err != nil {
		return err
	}
	err := errors.Join(
		kubectl("kubectl get pod, empty discovery cache", "get", "pod", pod),
		kubectl("kubectl get pod", "get", "pod", pod),
		kubectl("kubectl apply, 2 new objects", "apply", "-f", manifest),
		kubectl("kubectl apply, nothing to do", "apply", "-f", manifest),
		kubectl("kubectl apply --server-side", "apply", "--server-side", "--force-conflicts", "-f", manifest),
		kubectl("kubectl delete", "delete", "-f", manifest),
	)
	if err != nil || helm == "" {
		return err
	}
	chart, err := writeChart(at.home)
	if err != nil {
		return err
	}
	run := func(name string, args ...string) error {
		return note(name, func() error {
			cmd := at.command(ctx, helm, append(at.helmFlags(), args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	return errors.Join(
		run("helm install, 2 objects", "install", "bench", chart),
		run("helm upgrade", "upgrade", "bench", chart, "--set", "x=y"),
		run("helm list", "list"),
		run("helm uninstall", "uninstall", "bench"),
	)
}

// context that the flags name, or else the current one.
func (s *seat) context(current string) string {
	for _, f := range s.flags {
		if name, found := strings.CutPrefix(f, "--context="); found {
			return name
		}
	}
	return current
}

// helmFlags are the seat's flags in helm's words.
func (s *seat) helmFlags() []string {
	var flags []string
	for _, f := range s.flags {
		flags = append(flags, strings.Replace(f, "--context=", "--kube-context=", 1))
	}
	return flags
}

// port that the seat's programs connect to: the proxy's, or else the API server's.
func (s *seat) port() (string, error) {
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		return "", err
	}
	used := config.Contexts[s.context(config.CurrentContext)]
	if used == nil || config.Clusters[used.Cluster] == nil {
		return "", fmt.Errorf("%s has no context in use", s.kubeconfig)
	}
	cluster := config.Clusters[used.Cluster]
	place := cluster.Server
	if cluster.ProxyURL != "" {
		place = cluster.ProxyURL
	}
	target, err := url.Parse(place)
	if err != nil {
		return "", err
	}
	return target.Port(), nil
}
