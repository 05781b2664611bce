package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/kube-zt/zt/test/bench/floor"
	"github.com/kube-zt/zt/test/bench/report"
)

func runBulk(ctx context.Context, b *bench) error {
	if _, err := b.controlPlane(ctx); err != nil {
		return err
	}
	var ways []*way
	for _, open := range []func(context.Context) (*way, error){b.bulkDaisyWay, b.ztBulkWay} {
		w, err := open(ctx)
		if errors.Is(err, errNoZT) {
			continue
		}
		if err != nil {
			return err
		}
		ways = append(ways, w)
	}
	size := pick(b, int64(256<<20), 16<<20)
	section := &report.Section{
		Title: fmt.Sprintf("One stream of %d MiB", size>>20),
		Note: "Through an upgraded exec, from a client in the bench: loopback CONNECT, inner TLS, HTTP/2 stream in mutual TLS, TLS to an upstream that sends or receives as fast as it can. " +
			"`daisy` only passes bytes on; zt has a request to judge first. CPU is milliseconds of the process per MiB.",
		Details: report.Table{Columns: []string{"", "MiB/s", "gateway CPU ms", "laptop CPU ms"}},
	}
	for _, direction := range []string{"download", "upload"} {
		s := samples{}
		if err := b.rounds(ways, b.count(7), func(w *way) error { return bulkRound(ctx, s, w, direction, size) }); err != nil {
			return err
		}
		section.Figures = append(section.Figures,
			s.figure("bulk "+direction, "MiB/s", ztTunnel, daisy, perSecond, report.AtLeast(0.85)),
			s.figure("bulk "+direction+": gateway and laptop CPU", "ms", ztTunnel, daisy, bothCPU, report.Target{}))
		for _, w := range ways {
			section.Details.Add(w.name+", "+direction, s.median(w.name, perSecond), s.median(w.name, gatewayCPU), s.median(w.name, laptopCPU))
		}
	}
	return b.add(section)
}

// bulkUpstream is the API server as both ways see it, with one pod of ours.
func (b *bench) bulkUpstream(ctx context.Context) (*floor.Process, error) {
	return b.floor(ctx, floor.Config{Kind: floor.Upstream})
}

func (b *bench) bulkDaisyWay(ctx context.Context) (*way, error) {
	upstream, err := b.bulkUpstream(ctx)
	if err != nil {
		return nil, err
	}
	g, err := b.newFloor(ctx, floor.Config{Kind: floor.DaisyGateway, Server: "https://" + upstream.Addr, ServerCA: b.keys.CertPEM})
	if err != nil {
		return nil, err
	}
	b.atEnd(g.Stop)
	l, err := b.newFloor(ctx, floor.Config{Kind: floor.DaisyLaptop, Next: g.Addr})
	if err != nil {
		return nil, err
	}
	b.atEnd(l.Stop)
	w, err := b.floorWayTo(ctx, daisy, g, "")
	if err != nil {
		return nil, err
	}
	w.through(l)
	w.base = "https://" + floor.BulkHost
	return w, nil
}

// bulkRound moves size bytes one way and adds how it went.
func bulkRound(ctx context.Context, s samples, w *way, direction string, size int64) error {
	stream, err := w.upgrade(ctx, fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/exec?stdout=1&command=%s&command=%d", namespace, floor.BulkPod, direction, size))
	if err != nil {
		return err
	}
	defer stream.Close()
	before, err := w.usage()
	if err != nil {
		return err
	}
	start := time.Now()
	if direction == "download" {
		err = floor.Receive(stream, size)
	} else {
		err = floor.Send(stream, size)
		if err == nil {
			err = readDone(stream)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", w.name, direction, err)
	}
	took := time.Since(start)
	after, err := w.usage()
	if err != nil {
		return err
	}
	used, size64 := after.since(before), mebibytes(size)
	s.add(w.name, perSecond, size64/took.Seconds())
	s.add(w.name, gatewayCPU, milliseconds(used.gateway)/size64)
	s.add(w.name, laptopCPU, milliseconds(used.laptop)/size64)
	s.add(w.name, bothCPU, milliseconds(used.gateway+used.laptop)/size64)
	return nil
}

func readDone(r io.Reader) error {
	done := make([]byte, len(floor.BulkDone))
	if _, err := io.ReadFull(r, done); err != nil {
		return err
	}
	if string(done) != floor.BulkDone {
		return fmt.Errorf("the upstream said %q", done)
	}
	return nil
}

// upgraded is a connection after its upgrade.
type upgraded struct {
	net.Conn
	reader *bufio.Reader
}

func (u upgraded) Read(p []byte) (int, error) { return u.reader.Read(p) }

// upgrade makes one connection through the way's CONNECT and asks for an upgrade
// of path on it.
func (w *way) upgrade(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.proxy.Host)
	if err != nil {
		return nil, err
	}
	stream, err := w.upgradeOn(ctx, conn, path)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: upgrade: %w", w.name, err)
	}
	return stream, nil
}

func (w *way) upgradeOn(ctx context.Context, conn net.Conn, path string) (net.Conn, error) {
	request, err := w.request(ctx, http.MethodPost, path, nil)
	if err != nil {
		return nil, err
	}
	target := request.URL.Hostname() + ":443"
	ask := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if user := w.proxy.User; user != nil {
		ask += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.String())) + "\r\n"
	}
	if _, err := io.WriteString(conn, ask+"\r\n"); err != nil {
		return nil, err
	}
	// The proxy says nothing more before we do, so that a reader takes nothing of
	// the TLS away.
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	answer.Body.Close() // has none, and this reads none
	if answer.StatusCode != http.StatusOK {
		return nil, errors.New(answer.Status)
	}
	config := w.tls.Clone()
	config.NextProtos = []string{"http/1.1"}
	if config.ServerName == "" {
		config.ServerName = request.URL.Hostname()
	}
	inner := tls.Client(conn, config)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	request.Header.Set("X-Stream-Protocol-Version", "v4.channel.k8s.io")
	if err := request.Write(inner); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(inner, 32<<10)
	switched, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, err
	}
	defer switched.Body.Close() // of a 101, empty
	if switched.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(switched.Body, 1<<10))
		return nil, fmt.Errorf("%s: %s", switched.Status, text)
	}
	return upgraded{inner, reader}, nil
}
