package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kube-zt/zt/test/bench/floor"
)

// seat is where a person sits who uses kubectl over one way: a home directory
// with its discovery cache, and a kubeconfig.
type seat struct {
	name string
	home string
	env  []string // whole
	// flags that choose the cluster.
	flags      []string
	path       string // of kubectl
	kubeconfig string
}

// args of kubectl at this seat.
func (s *seat) args(args ...string) []string {
	return append(append([]string{s.path}, s.flags...), args...)
}

// command prepares another program, or kubectl when program is empty.
func (s *seat) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if program == "" {
		program = s.path
		args = s.args(args...)[1:]
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = s.home, s.env
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs kubectl; what it prints is in the error only.
func (s *seat) run(ctx context.Context, args ...string) error {
	cmd := s.command(ctx, "", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: kubectl %s: %w: %s", s.name, strings.Join(args, " "), err, out)
	}
	return nil
}

// forget empties the discovery cache.
func (s *seat) forget() error { return os.RemoveAll(filepath.Join(s.home, ".kube", "cache")) }

// seats returns those of names that can be had. Where distance is not nil, it is
// put between the laptop and what the laptop's programs dial.
func (b *bench) seats(ctx context.Context, distance distance, names ...string) ([]*seat, error) {
	if _, err := b.controlPlane(ctx); err != nil {
		return nil, err
	}
	var seats []*seat
	for _, name := range b.wanted(names) {
		s, err := b.seat(ctx, distance, name)
		if errors.Is(err, errNoZT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		seats = append(seats, s)
	}
	return seats, nil
}

// distance turns the address of a server into one that is further away.
type distance func(ctx context.Context, addr string) (string, error)

func near(_ context.Context, addr string) (string, error) { return addr, nil }

func (b *bench) seat(ctx context.Context, away distance, name string) (*seat, error) {
	switch name {
	case direct:
		kubeconfig, err := b.cp.UserKubeconfig("bench", loadGroup)
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(kubeconfig)
		if err != nil {
			return nil, err
		}
		addr := strings.TrimPrefix(b.cp.URL, "https://")
		moved, err := away(ctx, addr)
		if err != nil {
			return nil, err
		}
		return b.newSeat(name, strings.ReplaceAll(string(content), addr, moved))
	case least:
		g, err := b.floor(ctx, floor.Config{Kind: floor.Proxy})
		if err != nil {
			return nil, err
		}
		moved, err := away(ctx, g.Addr)
		if err != nil {
			return nil, err
		}
		return b.floorSeat(ctx, name, "https://"+moved, "")
	case daisy:
		g, err := b.floor(ctx, floor.Config{Kind: floor.DaisyGateway})
		if err != nil {
			return nil, err
		}
		moved, err := away(ctx, g.Addr)
		if err != nil {
			return nil, err
		}
		l, err := b.newFloor(ctx, floor.Config{Kind: floor.DaisyLaptop, Next: moved})
		if err != nil {
			return nil, err
		}
		b.atEnd(l.Stop)
		return b.floorSeat(ctx, name, "https://"+floor.ServerName, "http://"+l.Addr)
	case ztTunnel:
		return b.ztSeat(ctx, away)
	default:
		return nil, errors.New("no such seat")
	}
}

// floorSeat uses a floor, with the least helper for its token.
func (b *bench) floorSeat(ctx context.Context, name, server, proxy string) (*seat, error) {
	helper, err := b.leastHelper(ctx)
	if err != nil {
		return nil, err
	}
	if proxy != "" {
		proxy = ", proxy-url: " + proxy
	}
	return b.newSeat(name, fmt.Sprintf(`
apiVersion: v1
kind: Config
current-context: bench
clusters: [{name: bench, cluster: {server: %q, certificate-authority-data: %s%s}}]
users: [{name: bench, user: %s}]
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
`, server, base64.StdEncoding.EncodeToString(b.keys.CertPEM), proxy, helperUser(helper)))
}

func (b *bench) newSeat(name, kubeconfig string) (*seat, error) {
	home, err := os.MkdirTemp(b.dir, "home-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(home, "config")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		return nil, err
	}
	return &seat{
		name: name, home: home, kubeconfig: path, path: b.cp.Bin("kubectl"), flags: []string{"--namespace=" + namespace},
		env: []string{"HOME=" + home, "KUBECONFIG=" + path, "PATH=" + os.Getenv("PATH")},
	}, nil
}
