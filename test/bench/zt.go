package main

import (
	"context"
	"errors"
	"net"
)

// errNoZT says that zt is not part of this run.
var errNoZT = errors.New("without zt")

type zt struct{}

func (b *bench) ztDirectWay(context.Context) (*way, error) { return nil, errNoZT }
func (b *bench) ztTunnelWay(context.Context) (*way, error) { return nil, errNoZT }

func dialTo(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

func (b *bench) restartGateway(context.Context) error { return errNoZT }

func (b *bench) credential(context.Context) (*timed, error) { return nil, nil }
func runCommands(context.Context, *bench) error             { return nil }
func runIdle(context.Context, *bench) error                 { return nil }

func (b *bench) ztSeat(context.Context, distance) (*seat, error) { return nil, errNoZT }
func (b *bench) ztBulkWay(context.Context) (*way, error)         { return nil, errNoZT }
