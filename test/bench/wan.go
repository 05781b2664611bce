package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kube-zt/zt/test/bench/relay"
	"github.com/kube-zt/zt/test/bench/report"
)

// wanDelay each way.
const wanDelay = 25 * time.Millisecond

func runWAN(ctx context.Context, b *bench) error {
	seats, err := b.seats(ctx, b.relayed, direct, daisy, ztTunnel)
	if err != nil {
		return err
	}
	section := &report.Section{
		Title: "kubectl get pod over 25 ms each way",
		Note: "A relay delays every byte and charges the round trip of the TCP handshake. It stands between kubectl and the API server, or between agent and gateway, " +
			"whose connection is up; gateway and API server are near each other. The aim is 0.8. With an empty discovery cache kubectl opens a second connection behind a proxy, " +
			"so that both ways take five round trips.",
		Details: report.Table{Columns: []string{"", "wall ms", "p90 ms", "to direct"}},
	}
	for _, kind := range []struct {
		name   string
		cold   bool
		target report.Target
	}{{"discovery cached", false, report.AtMost(1)}, {"empty discovery cache", true, report.Target{}}} {
		s := samples{}
		for round := range pick(b, 15, 2) {
			for i := range seats {
				at := seats[(i+round)%len(seats)]
				if kind.cold || round == 0 {
					if err := at.forget(); err != nil {
						return err
					}
				}
				if !kind.cold && round == 0 {
					if err := at.run(ctx, "get", "pod", pod); err != nil {
						return err
					}
				}
				start := time.Now()
				if err := at.run(ctx, "get", "pod", pod); err != nil {
					return err
				}
				s.add(at.name, wall, milliseconds(time.Since(start)))
			}
		}
		section.Figures = append(section.Figures, s.figure("kubectl get pod, "+kind.name, "ms", ztTunnel, direct, wall, kind.target))
		for _, at := range seats {
			section.Details.Add(fmt.Sprintf("%s, %s", at.name, kind.name), s.median(at.name, wall), quantile(s[at.name][wall], 0.9), s.ratio(at.name, direct, wall))
		}
	}
	return b.add(section)
}

// relayed puts the delay in front of an address for the rest of the run.
func (b *bench) relayed(ctx context.Context, addr string) (string, error) {
	return b.relay(ctx, addr, wanDelay)
}

func (b *bench) relay(ctx context.Context, addr string, delay time.Duration) (string, error) {
	r, err := relay.Listen(ctx, addr, delay)
	if err != nil {
		return "", err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var run sync.WaitGroup
	run.Go(func() { _ = r.Run(running) })
	b.atEnd(func() { cancel(); run.Wait() })
	return r.Addr(), nil
}
