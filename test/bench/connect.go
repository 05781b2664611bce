package main

import (
	"context"
	"time"

	"github.com/kube-zt/zt/test/bench/report"
)

func runConnect(ctx context.Context, b *bench) error {
	ways, err := b.ways(ctx, direct, least, chain, daisy, ztDirect, ztTunnel)
	if err != nil {
		return err
	}
	s := samples{}
	err = b.rounds(ways, b.count(7), func(w *way) error {
		l, err := drive(ctx, w, 16, pick(b, 2*time.Second, 300*time.Millisecond), func(ctx context.Context) error {
			transport := w.transport()
			defer transport.CloseIdleConnections()
			_, err := w.get(ctx, transport, podPath, nil)
			return err
		})
		if err == nil {
			s.addLoad(w.name, l)
		}
		return err
	})
	if err != nil {
		return err
	}
	section := &report.Section{
		Title: "A new connection per request, 16 in parallel",
		Note: "Each GET with a TLS connection of its own to the API server, the floor or the kube part. `chain` makes a mutual-TLS connection for each, " +
			"`daisy` a stream on a warm one. CPU is milliseconds of the process per connection and its request.",
		Details: loadColumns(),
		Figures: []report.Figure{
			s.figure("new connection: gateway CPU", "ms", ztTunnel, chain, gatewayCPU, report.AtMost(1.3)),
			s.figure("new connection: gateway and laptop CPU", "ms", ztTunnel, chain, bothCPU, report.AtMost(1.3)),
			s.figure("new connection: gateway CPU", "ms", ztTunnel, daisy, gatewayCPU, report.Target{}),
			s.figure("new connection: requests", "/s", ztTunnel, daisy, perSecond, report.Target{}),
		},
	}
	s.loadRows(&section.Details, ways, "")
	return b.add(section)
}
