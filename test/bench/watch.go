package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/test/bench/floor"
	"github.com/kube-zt/zt/test/bench/proc"
	"github.com/kube-zt/zt/test/bench/report"
)

// watched is the object whose changes all watches must see, each once.
const watched = "watched"

// runWatch gives every way processes of its own: memory that was used once does
// not come back at once.
func runWatch(ctx context.Context, b *bench) error {
	if _, err := b.controlPlane(ctx); err != nil {
		return err
	}
	watches, events := pick(b, 500, 50), pick(b, 40, 5)
	section := &report.Section{
		Title: fmt.Sprintf("%d watches", watches),
		Note: fmt.Sprintf("All on one object, which changes %d times a round; each watch must see each change once, in order. "+
			"Delay is from the begin of the write to the watch's client. Memory and sockets are the gateway process's, fresh for each round.", events),
		Details: report.Table{Columns: []string{"", "open ms", "delay p50 ms", "delay p99 ms", "lost", "idle MiB", "MiB", "KiB per watch", "sockets", "gateway CPU ms per event"}},
	}
	s := samples{}
	names := b.wanted([]string{direct, least, chain, daisy, ztDirect, ztTunnel})
	for round := range b.count(3) {
		for i := range names {
			name := names[(i+round)%len(names)]
			if err := b.watchParty(ctx, s, name, watches, events); err != nil && !errors.Is(err, errNoZT) {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, n := range names {
		section.Details.Add(n, s.median(n, "open"), s.median(n, p50), s.median(n, p99), s.median(n, "lost"),
			s.median(n, "idle"), s.median(n, "memory"), s.median(n, "each"), s.median(n, "sockets"), s.median(n, gatewayCPU))
	}
	for _, pair := range [][2]string{{ztDirect, least}, {ztTunnel, daisy}} {
		name := pair[0] + ": "
		section.Figures = append(section.Figures,
			report.Figure{Name: name + "events lost", Value: s.median(pair[0], "lost"), Target: report.AtMost(0)},
			s.figure(name+"delay p50", "ms", pair[0], pair[1], p50, report.AtMost(1.15)),
			s.figure(name+"resident", "MiB", pair[0], pair[1], "memory", report.AtMost(2)),
			report.Figure{Name: name + "memory of a watch", Unit: "KiB", Value: s.median(pair[0], "each"), Target: report.AtMost(64)},
		)
	}
	return b.add(section)
}

// watchParty is one round of one way, with a gateway of its own.
func (b *bench) watchParty(ctx context.Context, s samples, name string, watches, events int) error {
	p, err := b.newParty(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	return b.watchRound(ctx, p.way, s, watches, events)
}

// party is a way whose gateway nobody else uses.
type party struct {
	way   *way
	close func()
}

func (b *bench) newParty(ctx context.Context, name string) (*party, error) {
	gateways := map[string]floor.Kind{least: floor.Proxy, chain: floor.ChainGateway, daisy: floor.DaisyGateway}
	laptops := map[string]floor.Kind{chain: floor.ChainLaptop, daisy: floor.DaisyLaptop}
	gateway, isFloor := gateways[name]
	if !isFloor {
		return b.newOwnParty(ctx, name)
	}
	p := &party{close: func() {}}
	g, err := b.newFloor(ctx, floor.Config{Kind: gateway})
	if err != nil {
		return nil, err
	}
	p.close = g.Stop
	if p.way, err = b.floorWayTo(ctx, name, g, ""); err != nil {
		p.close()
		return nil, err
	}
	if laptop := laptops[name]; laptop != "" {
		l, err := b.newFloor(ctx, floor.Config{Kind: laptop, Next: g.Addr})
		if err != nil {
			p.close()
			return nil, err
		}
		p.close = func() { l.Stop(); g.Stop() }
		p.way.through(l)
	}
	return p, nil
}

// newOwnParty is for the ways that are no floors: the API server, and zt with a
// gateway started anew.
func (b *bench) newOwnParty(ctx context.Context, name string) (*party, error) {
	if name != direct {
		if err := b.restartGateway(ctx); err != nil {
			return nil, err
		}
	}
	w, err := b.way(ctx, name)
	if err != nil {
		return nil, err
	}
	return &party{way: w, close: func() {}}, nil
}

// watchRound opens the watches, makes the events, and closes the watches.
func (b *bench) watchRound(ctx context.Context, w *way, s samples, watches, events int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	version, err := b.newWatched(ctx)
	if err != nil {
		return err
	}
	before, err := memoryOf(w.gateway)
	if err != nil {
		return err
	}
	transport := w.transport()
	defer transport.CloseIdleConnections()
	start := time.Now()
	watchers, err := openWatches(ctx, w, transport, version, watches)
	defer func() {
		for _, one := range watchers {
			one.body.Close()
		}
	}()
	if err != nil {
		return err
	}
	s.add(w.name, "open", milliseconds(time.Since(start)))
	used, err := w.usage()
	if err != nil {
		return err
	}
	var reading sync.WaitGroup
	for _, one := range watchers {
		reading.Go(func() { one.read(events) })
	}
	if err := b.makeEvents(ctx, events); err != nil {
		return err
	}
	arrived := make(chan struct{})
	go func() { reading.Wait(); close(arrived) }()
	select {
	case <-arrived:
	case <-time.After(20 * time.Second): // what has not come now is lost
		for _, one := range watchers {
			one.body.Close()
		}
		<-arrived
	}
	after, err := w.usage()
	if err != nil {
		return err
	}
	var delays []float64
	lost := 0
	for _, one := range watchers {
		delays = append(delays, one.delays...)
		lost += events - len(one.delays)
		if one.disorder != nil {
			return one.disorder
		}
	}
	s.add(w.name, p50, median(delays))
	s.add(w.name, p99, quantile(delays, 0.99))
	s.add(w.name, "lost", float64(lost))
	s.add(w.name, gatewayCPU, milliseconds(after.since(used).gateway)/float64(watches*events))
	if w.gateway == 0 {
		return nil
	}
	now, err := memoryOf(w.gateway)
	if err != nil {
		return err
	}
	sockets, err := proc.Sockets(w.gateway)
	if err != nil {
		return err
	}
	s.add(w.name, "idle", mebibytes(before.Resident))
	s.add(w.name, "memory", mebibytes(now.Resident))
	s.add(w.name, "each", mebibytes(now.Resident-before.Resident)*1024/float64(watches))
	s.add(w.name, "sockets", float64(sockets))
	return nil
}

func memoryOf(pid int) (proc.Memory, error) {
	if pid == 0 {
		return proc.Memory{}, nil
	}
	return proc.ReadMemory(pid)
}

// newWatched makes the object anew and returns the version to watch from.
func (b *bench) newWatched(ctx context.Context) (string, error) {
	maps := b.cp.Client().CoreV1().ConfigMaps(namespace)
	if err := maps.Delete(ctx, watched, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return "", err
	}
	made, err := maps.Create(ctx, configMap(watched), metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return made.ResourceVersion, nil
}

// makeEvents changes the object, 20 times a second.
func (b *bench) makeEvents(ctx context.Context, events int) error {
	maps := b.cp.Client().CoreV1().ConfigMaps(namespace)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range events {
		changed := configMap(watched)
		changed.Data = map[string]string{"number": strconv.Itoa(i), "at": strconv.FormatInt(time.Now().UnixNano(), 10)}
		if _, err := maps.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// watcher is one open watch and what it saw.
type watcher struct {
	body     io.ReadCloser
	delays   []float64 // milliseconds, one per event
	disorder error
}

// openWatches opens all watches, 16 at a time, and returns when each has had its
// answer. Those that were opened are returned with an error, too.
func openWatches(ctx context.Context, w *way, through http.RoundTripper, version string, n int) ([]*watcher, error) {
	path := "/api/v1/namespaces/" + namespace + "/configmaps?watch=1&fieldSelector=metadata.name%3D" + watched + "&resourceVersion=" + version
	opened := make([]*watcher, n)
	errs := make([]error, n)
	gate := make(chan struct{}, 16)
	var opening sync.WaitGroup
	for i := range n {
		gate <- struct{}{}
		opening.Go(func() {
			defer func() { <-gate }()
			opened[i], errs[i] = openWatch(ctx, w, through, path)
		})
	}
	opening.Wait()
	var watchers []*watcher
	for _, one := range opened {
		if one != nil {
			watchers = append(watchers, one)
		}
	}
	return watchers, errors.Join(errs...)
}

func openWatch(ctx context.Context, w *way, through http.RoundTripper, path string) (*watcher, error) {
	request, err := w.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	response, err := through.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		response.Body.Close()
		return nil, fmt.Errorf("watch: %s: %s", response.Status, text)
	}
	return &watcher{body: response.Body}, nil
}

// read reads as many events, or until the body ends.
func (w *watcher) read(events int) {
	lines := bufio.NewReader(w.body)
	for len(w.delays) < events {
		line, err := lines.ReadBytes('\n')
		arrived := time.Now()
		if err != nil {
			return
		}
		var event struct {
			Type   string           `json:"type"`
			Object corev1.ConfigMap `json:"object"`
		}
		if err := json.Unmarshal(line, &event); err != nil {
			w.disorder = fmt.Errorf("read a watch: %w", err)
			return
		}
		at, err := strconv.ParseInt(event.Object.Data["at"], 10, 64)
		if err != nil || event.Type != "MODIFIED" || event.Object.Data["number"] != strconv.Itoa(len(w.delays)) {
			w.disorder = fmt.Errorf("a watch saw %s of change %q, not %d", event.Type, event.Object.Data["number"], len(w.delays))
			return
		}
		w.delays = append(w.delays, milliseconds(arrived.Sub(time.Unix(0, at))))
	}
}
