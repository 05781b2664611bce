package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/gateway/audit"
	"github.com/kube-zt/zt/test/env/stack"
)

// cutWithin is how long after its end was decided a stream may live.
const cutWithin = 2 * time.Second

// process is a kubectl that runs on while a test watches what it prints.
type process struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr screen
	ended          chan struct{}
	endedAt        time.Time // set before ended is closed
}

// screen is what a process has printed up to now.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	last time.Time
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// lines are the whole lines.
func (s *screen) lines() []string {
	text := s.String()
	text = text[:strings.LastIndexByte(text, '\n')+1]
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// start starts this transport's kubectl with an input that stays open until the
// test closes it.
func (g *streams) start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cmd: g.command(ctx, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
		p.endedAt = time.Now()
	}()
	t.Cleanup(func() { cancel(); <-p.ended })
	return p
}

// want waits for a line of its output.
func (p *process) want(t *testing.T, line string) {
	t.Helper()
	eventually(t, 20*time.Second, "kubectl prints "+line, func() bool {
		for _, l := range p.stdout.lines() {
			if l == line {
				return true
			}
		}
		if p.over() {
			t.Fatalf("ended before %q:\n%s%s", line, p.stdout.String(), p.stderr.String())
		}
		return false
	})
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// end waits for its end and returns its exit code.
func (p *process) end(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("kubectl runs on after %v:\n%s%s", within, p.stdout.String(), p.stderr.String())
		return 0
	}
}

// gatewayAudit is what the gateway has recorded up to now.
func gatewayAudit(t *testing.T, s *stack.Stack) []audit.Record {
	t.Helper()
	f, err := os.Open(s.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var records []audit.Record
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil { // also a line that is being written
			return records
		}
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		records = append(records, r)
	}
}
