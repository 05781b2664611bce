package floor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Argument is the first argument that makes a program that calls Main a floor.
const Argument = "bench-floor"

// Kind is one of the programs.
type Kind string

// The kinds; see the package comment.
const (
	Proxy        Kind = "proxy"
	ChainGateway Kind = "chain-gateway"
	ChainLaptop  Kind = "chain-laptop"
	DaisyGateway Kind = "daisy-gateway"
	DaisyLaptop  Kind = "daisy-laptop"
	Upstream     Kind = "upstream"
	Agent        Kind = "agent"
)

// laptop reports whether the program plays an agent's part.
func (k Kind) laptop() bool { return k == ChainLaptop || k == DaisyLaptop || k == Agent }

// Config goes to a floor on its standard input. Which fields a kind needs follows
// from what it does.
type Config struct {
	Kind Kind
	// API server: URL, certificate authority in PEM, and the bearer token of an
	// account that may impersonate.
	Server      string
	ServerCA    []byte
	ServerToken string
	// Keys for the listeners of this floor and, for a laptop, its client key.
	Keys Keys
	// Next is the host:port that a laptop dials.
	Next string
	// Socket and Document are an Agent's.
	Socket   string
	Document []byte
}

// Process is a running floor.
type Process struct {
	// Addr is host:port of its listener, empty for an Agent.
	Addr string
	// PID of the process, for CPU time and memory.
	PID int

	cmd   *exec.Cmd
	stdin io.Closer
}

// Start runs the program at path, which must call Main, as a floor and returns
// when it listens. It ends with Stop, or when this process ends.
func Start(ctx context.Context, path string, config Config) (*Process, error) {
	content, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("start floor %s: %w", config.Kind, err)
	}
	cmd := exec.Command(path, Argument)
	// The laptop's half has a session of its own, as a spawned agent has: where the
	// kernel shares processors by session, that decides when it runs.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: config.Kind.laptop()}
	var diag bytes.Buffer
	cmd.Stderr = &diag
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start floor %s: %w", config.Kind, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start floor %s: %w", config.Kind, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start floor %s: %w", config.Kind, err)
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, stdin: stdin}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if _, err := stdin.Write(append(content, '\n')); err != nil {
		p.Stop()
		return nil, fmt.Errorf("start floor %s: %w: %s", config.Kind, err, diag.Bytes())
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("start floor %s: %w: %s", config.Kind, err, diag.Bytes())
	}
	p.Addr = line[:len(line)-1]
	return p, nil
}

// Stop ends the floor and waits for it.
func (p *Process) Stop() {
	_ = p.stdin.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// Main is the whole program of a floor: configuration from stdin, the address to
// stdout, and the end when stdin ends. It returns the exit code.
func Main() int {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var config Config
	if err := json.Unmarshal(line, &config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	addr, err := serve(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(addr)
	_, _ = io.Copy(io.Discard, in)
	return 0
}

func serve(config Config) (addr string, err error) {
	switch config.Kind {
	case Proxy:
		return serveProxy(config)
	case ChainGateway:
		return serveChainGateway(config)
	case ChainLaptop:
		return serveChainLaptop(config)
	case DaisyGateway:
		return serveDaisyGateway(config)
	case DaisyLaptop:
		return serveDaisyLaptop(config)
	case Upstream:
		return serveUpstream(config)
	case Agent:
		return "", serveAgent(config)
	default:
		return "", fmt.Errorf("no floor %q", config.Kind)
	}
}
