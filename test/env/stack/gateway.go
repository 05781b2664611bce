package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Gateway is one zt-gateway process.
type Gateway struct {
	// Log is the path of what it prints.
	Log string

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// PID of the process.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Signal sends sig.
func (g *Gateway) Signal(sig syscall.Signal) error { return g.cmd.Process.Signal(sig) }

// Wait waits for its end and returns how it ended.
func (g *Gateway) Wait(ctx context.Context) error {
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Logs is all that it has printed.
func (g *Gateway) Logs() string {
	b, err := os.ReadFile(g.Log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// StartGateway starts the stack's gateway on its configuration and returns when
// it is ready.
func (s *Stack) StartGateway(ctx context.Context) error {
	bin, err := Programs(ctx)
	if err != nil {
		return err
	}
	g := &Gateway{Log: filepath.Join(s.Dir, "gateway.log"), done: make(chan struct{})}
	out, err := os.OpenFile(g.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	defer out.Close()
	g.cmd = exec.Command(filepath.Join(bin, "zt-gateway"), "serve", "--config", s.ConfigFile)
	g.cmd.Dir = s.Dir
	g.cmd.Env = append([]string{"HOME=" + s.Dir, "PATH=" + os.Getenv("PATH")}, s.gatewayEnv...)
	g.cmd.Stdout, g.cmd.Stderr = out, out
	if err := s.group.Start(g.cmd); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.done)
	}()
	s.Gateway = g
	return s.WaitReady(ctx)
}

// StopGateway asks the gateway to drain and waits.
func (s *Stack) StopGateway(ctx context.Context) error {
	if err := s.Gateway.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return s.Gateway.Wait(ctx)
}

// WaitReady polls /readyz for at most 30 seconds.
func (s *Stack) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if code, _, err := s.Admin(ctx, "/readyz"); err == nil && code == http.StatusOK {
			return nil
		}
		select {
		case <-s.Gateway.done:
			return fmt.Errorf("the gateway ended (%v):\n%s", s.Gateway.err, tail(s.Gateway.Logs()))
		case <-ctx.Done():
			return fmt.Errorf("the gateway is not ready:\n%s", tail(s.Gateway.Logs()))
		case <-tick.C:
		}
	}
}

func tail(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > 25 {
		lines = lines[len(lines)-25:]
	}
	return strings.Join(lines, "\n")
}

// Admin gets a path of the gateway's loopback listener: /livez, /readyz, /metrics.
func (s *Stack) Admin(ctx context.Context, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Metrics+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(body), err
}

// Reload makes the gateway load its configuration now and waits until it has
// tried to, whatever came of it.
func (s *Stack) Reload(ctx context.Context) error {
	before, err := s.reloads(ctx)
	if err != nil {
		return err
	}
	if err := s.Gateway.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := s.reloads(ctx)
		if err != nil {
			return err
		}
		if now > before {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway did not reload:\n%s", tail(s.Gateway.Logs()))
		case <-tick.C:
		}
	}
}

// reloads counts reloads, good and bad, by the gateway's own metric.
func (s *Stack) reloads(ctx context.Context) (float64, error) {
	_, text, err := s.Admin(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.Lines(text) {
		if strings.Contains(line, "reloads_total{") && strings.Contains(line, `source="objects"`) {
			fields := strings.Fields(line)
			n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				return 0, fmt.Errorf("read %q: %w", line, err)
			}
			sum += n
		}
	}
	return sum, nil
}
