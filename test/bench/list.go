package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/kube-zt/zt/test/bench/report"
)

func runList(ctx context.Context, b *bench) error {
	ways, err := b.ways(ctx, direct, least, daisy, ztDirect, ztTunnel)
	if err != nil {
		return err
	}
	pods := pick(b, 2000, 200)
	if err := b.createPods(ctx, pods); err != nil {
		return err
	}
	section := &report.Section{
		Title: fmt.Sprintf("LIST of %d pods", pods),
		Note: "One after the other. Without gzip means that the client did not ask for it; kubectl and client-go do. " +
			"The table of raw figures says what one LIST costs.",
		Details: report.Table{Columns: []string{"", "p50 ms", "to direct", "gateway CPU ms", "laptop CPU ms"}},
	}
	for _, kind := range []struct {
		name   string
		header http.Header
	}{
		{"without gzip", nil},
		{"with gzip", http.Header{"Accept-Encoding": {"gzip"}}},
	} {
		s, err := b.measureLists(ctx, ways, kind.header)
		if err != nil {
			return err
		}
		target := report.Target{}
		if kind.header == nil {
			target = report.AtMost(1)
		}
		for _, zt := range []string{ztDirect, ztTunnel} {
			section.Figures = append(section.Figures, s.figure(fmt.Sprintf("%s: LIST %s, p50", zt, kind.name), "ms", zt, direct, p50, target))
		}
		for _, w := range ways {
			section.Details.Add(w.name+", "+kind.name, s.median(w.name, p50), s.ratio(w.name, direct, p50),
				whenAny(w.gateway, s.median(w.name, gatewayCPU)), whenAny(w.laptop, s.median(w.name, laptopCPU)))
		}
	}
	return b.add(section)
}

// measureLists makes sure, too, that every way gives the same: as many bytes, as
// long as nothing changes and nobody compresses.
func (b *bench) measureLists(ctx context.Context, ways []*way, header http.Header) (samples, error) {
	s := samples{}
	const path = "/api/v1/namespaces/" + namespace + "/pods"
	length := int64(-1)
	err := b.rounds(ways, b.count(7), func(w *way) error {
		transport := w.transport()
		defer transport.CloseIdleConnections()
		l, err := drive(ctx, w, 1, pick(b, 2*time.Second, 200*time.Millisecond), func(ctx context.Context) error {
			n, err := w.get(ctx, transport, path, header)
			if err != nil || header != nil {
				return err
			}
			if length < 0 {
				length = n
			}
			if n != length {
				return fmt.Errorf("%s: a LIST of %d bytes, elsewhere of %d", w.name, n, length)
			}
			return nil
		})
		if err == nil {
			s.addLoad(w.name, l)
		}
		return err
	})
	return s, err
}
