package main

import (
	"context"
	"errors"
	"time"

	"github.com/kube-zt/zt/test/bench/proc"
	"github.com/kube-zt/zt/test/bench/report"
)

// runIdle reads the memory of a gateway that nobody uses, and of one that was
// used a little.
func runIdle(ctx context.Context, b *bench) error {
	if _, err := b.controlPlane(ctx); err != nil {
		return err
	}
	section := &report.Section{
		Title:   "Memory at rest",
		Note:    "The gateway process just after its start with one laptop connected, and ten seconds after a few hundred requests. What a watch costs stands with the watches.",
		Details: report.Table{Columns: []string{"", "MB resident"}},
	}
	err := b.restartGateway(ctx)
	if errors.Is(err, errNoZT) {
		return b.add(section)
	}
	if err != nil {
		return err
	}
	w, err := b.ztTunnelWay(ctx)
	if err != nil {
		return err
	}
	started, err := proc.ReadMemory(w.gateway)
	if err != nil {
		return err
	}
	transport := w.transport()
	if _, err := drive(ctx, w, 4, pick(b, 2*time.Second, 200*time.Millisecond), func(ctx context.Context) error {
		_, err := w.get(ctx, transport, podPath, nil)
		return err
	}); err != nil {
		return err
	}
	transport.CloseIdleConnections()
	select {
	case <-time.After(pick(b, 10*time.Second, time.Second)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	rested, err := proc.ReadMemory(w.gateway)
	if err != nil {
		return err
	}
	agent, err := proc.ReadMemory(w.laptop)
	if err != nil {
		return err
	}
	megabytes := func(n int64) float64 { return float64(n) / 1e6 }
	section.Figures = []report.Figure{
		{Name: "gateway at rest", Unit: "MB", Value: max(megabytes(started.Resident), megabytes(rested.Resident)), Target: report.AtMost(60)},
	}
	section.Details.Add("gateway, just started", megabytes(started.Resident))
	section.Details.Add("gateway, after requests", megabytes(rested.Resident))
	section.Details.Add("agent, after requests", megabytes(agent.Resident))
	return b.add(section)
}
