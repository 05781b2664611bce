package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed profile/listen.go.txt
var listenSource []byte

// profiler takes profiles of the gateway and of the agent. Both are built from the
// same sources as ever, with one file laid over them that listens on a socket.
type profiler struct {
	dir     string            // of the profiles
	sockets map[string]string // program to socket
}

// startProfiler builds the programs and makes the stack take them. It does
// nothing without -profile.
func (b *bench) startProfiler(ctx context.Context) error {
	if b.options.profile == "" {
		return nil
	}
	dir, err := filepath.Abs(b.options.profile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	source := filepath.Join(b.dir, "listen.go")
	overlay := map[string]map[string]string{"Replace": {}}
	p := &profiler{dir: dir, sockets: make(map[string]string)}
	for _, program := range []string{"zt-gateway", "kubectl-zt"} {
		overlay["Replace"][filepath.Join(root, "cmd", program, "bench_profile.go")] = source
		p.sockets[program] = filepath.Join(b.dir, program+".sock")
	}
	content, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	overlayFile, bin := filepath.Join(b.dir, "overlay.json"), filepath.Join(b.dir, "bin")
	if err := errors.Join(os.WriteFile(source, listenSource, 0o600), os.WriteFile(overlayFile, content, 0o600), os.Mkdir(bin, 0o700)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-overlay", overlayFile, "-o", bin+"/", "./cmd/...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build zt with profiles: %w\n%s", err, out)
	}
	b.profiler = p
	return os.Setenv("ZT_TEST_BIN", bin)
}

// profiled starts the profiles of a section and returns what ends them. Who does
// not run yet, or is started anew meanwhile, is left out.
func (b *bench) profiled(ctx context.Context, section string) (stop func()) {
	if b.profiler == nil || b.zt == nil {
		return func() {}
	}
	p := b.profiler
	for program := range p.sockets {
		file := filepath.Join(p.dir, section+"-"+program+".cpu.pprof")
		if err := p.ask(ctx, program, "/start?file="+url.QueryEscape(file), io.Discard); err != nil {
			b.say("no profile of %s: %v", program, err)
		}
	}
	return func() {
		for program := range p.sockets {
			_ = p.ask(ctx, program, "/stop", io.Discard)
			file, err := os.Create(filepath.Join(p.dir, section+"-"+program+".heap.pprof"))
			if err != nil {
				continue
			}
			_ = p.ask(ctx, program, "/heap", file)
			file.Close()
		}
	}
}

func (p *profiler) ask(ctx context.Context, program, path string, into io.Writer) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.sockets[program])
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://profile"+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(into, response.Body)
	return err
}

// environment of a program, to be added to its own.
func (p *profiler) environment(program string) []string {
	if p == nil {
		return nil
	}
	return []string{"ZT_BENCH_PROFILE=" + p.sockets[program]}
}
