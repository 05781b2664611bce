package main

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/kube-zt/zt/test/bench/report"
)

const podPath = "/api/v1/namespaces/" + namespace + "/pods/" + pod

// rounds runs measure for every way, as often as n says, each round in another
// order.
func (b *bench) rounds(ways []*way, n int, measure func(*way) error) error {
	for round := range n {
		for i := range ways {
			if err := measure(ways[(i+round)%len(ways)]); err != nil {
				return err
			}
		}
	}
	return nil
}

// load is what one way did in one round.
type load struct {
	requests  int
	elapsed   time.Duration
	latencies []float64 // milliseconds
	used      usage
}

// drive makes requests, parallel at a time, for a while. The first few are not
// counted: the very first opens a connection, without which each of many at once
// would open one of its own.
func drive(ctx context.Context, w *way, parallel int, duration time.Duration, request func(context.Context) error) (load, error) {
	if err := request(ctx); err != nil {
		return load{}, err
	}
	var warm sync.WaitGroup
	errs := make([]error, parallel)
	for i := range parallel {
		warm.Go(func() { errs[i] = request(ctx) })
	}
	warm.Wait()
	before, err := w.usage()
	if err != nil {
		return load{}, err
	}
	start := time.Now()
	latencies := make([][]float64, parallel)
	var working sync.WaitGroup
	for i := range parallel {
		working.Go(func() {
			for errs[i] == nil && time.Since(start) < duration {
				began := time.Now()
				errs[i] = request(ctx)
				latencies[i] = append(latencies[i], milliseconds(time.Since(began)))
			}
		})
	}
	working.Wait()
	l := load{elapsed: time.Since(start)}
	after, err := w.usage()
	if err != nil {
		return load{}, err
	}
	l.used = after.since(before)
	for i := range parallel {
		if errs[i] != nil {
			return load{}, errs[i]
		}
		l.latencies = append(l.latencies, latencies[i]...)
	}
	l.requests = len(l.latencies)
	return l, nil
}

// Metrics of a load.
const (
	perSecond  = "requests/s"
	p50        = "p50"
	p99        = "p99"
	gatewayCPU = "gateway CPU" // milliseconds per request
	laptopCPU  = "laptop CPU"
	bothCPU    = "CPU"
	serverCPU  = "API server CPU"
)

func (s samples) addLoad(way string, l load) {
	n := float64(l.requests)
	s.add(way, perSecond, n/l.elapsed.Seconds())
	s.add(way, p50, median(l.latencies))
	s.add(way, p99, quantile(l.latencies, 0.99))
	s.add(way, gatewayCPU, milliseconds(l.used.gateway)/n)
	s.add(way, laptopCPU, milliseconds(l.used.laptop)/n)
	s.add(way, serverCPU, milliseconds(l.used.server)/n)
	s.add(way, bothCPU, milliseconds(l.used.gateway+l.used.laptop)/n)
}

func runGet(ctx context.Context, b *bench) error {
	ways, err := b.ways(ctx, direct, least, chain, daisy, ztDirect, ztTunnel)
	if err != nil {
		return err
	}
	section := &report.Section{
		Title: "GET one pod",
		Note: "Kept connections, HTTP/2. `zt direct` is the kube part alone (the gateway passes the connection through by server name), " +
			"`zt` goes through agent and tunnel. CPU is milliseconds of the process per request.",
		Details: loadColumns(),
	}
	for _, parallel := range []int{1, 16, 64} {
		s := samples{}
		err := b.rounds(ways, b.count(7), func(w *way) error {
			transport := w.transport()
			defer transport.CloseIdleConnections()
			l, err := drive(ctx, w, parallel, pick(b, 2*time.Second, 300*time.Millisecond), func(ctx context.Context) error {
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
		for _, pair := range [][2]string{{ztDirect, least}, {ztTunnel, daisy}} {
			section.Figures = append(section.Figures, getFigures(s, pair[0], pair[1], parallel)...)
		}
		s.loadRows(&section.Details, ways, fmt.Sprintf("%d in parallel: ", parallel))
	}
	return b.add(section)
}

func getFigures(s samples, zt, beside string, parallel int) []report.Figure {
	name := fmt.Sprintf("%s: %d in parallel, ", zt, parallel)
	return []report.Figure{
		s.figure(name+"requests", "/s", zt, beside, perSecond, report.AtLeast(0.9)),
		s.figure(name+"p50", "ms", zt, beside, p50, report.AtMost(1.15)),
		s.figure(name+"gateway CPU", "ms", zt, beside, gatewayCPU, report.AtMost(1.3)),
	}
}

// figure of a metric of one way beside another.
func (s samples) figure(name, unit, zt, beside, metric string, target report.Target) report.Figure {
	return report.Figure{
		Name: name, Unit: unit, Value: s.median(zt, metric),
		Beside: beside, Floor: s.median(beside, metric), Ratio: s.ratio(zt, beside, metric), Target: target,
	}
}

func loadColumns() report.Table {
	return report.Table{Columns: []string{"", "requests/s", "to direct", "p50 ms", "p99 ms", "gateway CPU ms", "laptop CPU ms", "API server CPU ms"}}
}

func (s samples) loadRows(t *report.Table, ways []*way, prefix string) {
	for _, w := range ways {
		t.Add(prefix+w.name, s.median(w.name, perSecond), s.ratio(w.name, direct, perSecond), s.median(w.name, p50), s.median(w.name, p99),
			whenAny(w.gateway, s.median(w.name, gatewayCPU)), whenAny(w.laptop, s.median(w.name, laptopCPU)), s.median(w.name, serverCPU))
	}
}

// whenAny is NaN when there is no such process.
func whenAny(pid int, value float64) float64 {
	if pid == 0 {
		return math.NaN()
	}
	return value
}
