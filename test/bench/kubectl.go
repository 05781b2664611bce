package main

import (
	"context"

	"github.com/kube-zt/zt/test/bench/report"
)

func runKubectl(ctx context.Context, b *bench) error {
	seats, err := b.seats(ctx, near, direct, least, daisy, ztTunnel)
	if err != nil {
		return err
	}
	var commands []timed
	for _, s := range seats {
		commands = append(commands, timed{name: s.name, Args: s.args("get", "pod", pod), Env: s.env})
	}
	s := samples{}
	if err := b.timeRuns(ctx, s, pick(b, 60, 5), commands); err != nil {
		return err
	}
	section := &report.Section{
		Title: "A whole kubectl get pod",
		Note: "The whole life of stock kubectl, with its discovery cache and a live agent. `direct` has a client certificate, the floors the least credential helper. " +
			"For comparison: floor with kubelogin 1.15.",
		Details: report.Table{Columns: []string{"", "wall ms", "p90 ms", "to direct"}},
		Figures: []report.Figure{s.figure("kubectl get pod: wall", "ms", ztTunnel, direct, wall, report.AtMost(1.15))},
	}
	for _, c := range commands {
		section.Details.Add(c.name, s.median(c.name, wall), quantile(s[c.name][wall], 0.9), s.ratio(c.name, direct, wall))
	}
	return b.add(section)
}
