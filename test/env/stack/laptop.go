package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Laptop is a home directory in which one person works.
type Laptop struct {
	Home string
	// Kubeconfig is where kubectl-zt writes its contexts.
	Kubeconfig string
	// Env is added to every command's environment.
	Env []string

	stack *Stack
	user  atomic.Value // string: who sits at the browser
	opens atomic.Int64
	pages sync.WaitGroup
	fifo  *os.File
	once  sync.Once
}

// Laptop makes a new machine at which user (a login of the identity provider)
// sits. It ends with the stack at the latest.
func (s *Stack) Laptop(user string) (*Laptop, error) {
	home, err := os.MkdirTemp(s.Dir, "laptop-")
	if err != nil {
		return nil, fmt.Errorf("laptop: %w", err)
	}
	l := &Laptop{Home: home, Kubeconfig: filepath.Join(home, ".kube", "zt"), stack: s}
	l.user.Store(user)
	if err := os.MkdirAll(filepath.Join(home, "run"), 0o700); err != nil {
		return nil, fmt.Errorf("laptop: %w", err)
	}
	if err := l.openBrowser(); err != nil {
		return nil, fmt.Errorf("laptop: %w", err)
	}
	s.mu.Lock()
	s.laptops = append(s.laptops, l)
	s.mu.Unlock()
	return l, nil
}

// openBrowser makes the program that BROWSER names: it hands the URL over a pipe
// to this process, where the identity provider's own browser signs the person in.
func (l *Laptop) openBrowser() error {
	path := filepath.Join(l.Home, "browser.fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return err
	}
	script := "#!/bin/sh\nprintf '%s\\n' \"$1\" >'" + path + "'\n"
	if err := os.WriteFile(filepath.Join(l.Home, "browser"), []byte(script), 0o700); err != nil {
		return err
	}
	fifo, err := os.OpenFile(path, os.O_RDWR, 0) // both ends: it never reads EOF
	if err != nil {
		return err
	}
	l.fifo = fifo
	l.pages.Add(1)
	go func() {
		defer l.pages.Done()
		l.browse(fifo)
	}()
	return nil
}

func (l *Laptop) browse(urls io.Reader) {
	buf := make([]byte, 64<<10)
	var pending string
	for {
		n, err := urls.Read(buf)
		if err != nil {
			return
		}
		pending += string(buf[:n])
		for {
			line, rest, ok := strings.Cut(pending, "\n")
			if !ok {
				break
			}
			pending = rest
			l.opens.Add(1)
			user := l.user.Load().(string)
			if user == "" {
				continue // nobody is at the screen
			}
			l.pages.Add(1)
			go func() {
				defer l.pages.Done()
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				if err := l.stack.IdP.Browser().Login(ctx, line, user); err != nil {
					fmt.Fprintf(l.stack.log, "browser of %s: %v\n", user, err)
				}
			}()
		}
	}
}

// SetUser changes who sits at the browser; nobody does when user is empty.
func (l *Laptop) SetUser(user string) { l.user.Store(user) }

// BrowserOpens counts how often a page was opened.
func (l *Laptop) BrowserOpens() int { return int(l.opens.Load()) }

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // -1: it did not exit by itself
	Took           time.Duration
}

// String is for failure messages.
func (r Result) String() string {
	return fmt.Sprintf("exit %d after %v\nstdout:\n%s\nstderr:\n%s", r.Code, r.Took.Round(time.Millisecond), r.Stdout, r.Stderr)
}

// Environ is the whole environment of this laptop's commands.
func (l *Laptop) Environ() []string {
	bin, _ := Programs(context.Background())
	env := []string{
		"HOME=" + l.Home,
		"XDG_RUNTIME_DIR=" + filepath.Join(l.Home, "run"),
		"PATH=" + bin + ":" + filepath.Dir(l.stack.ControlPlane.Bin("kubectl")) + ":/usr/local/bin:/usr/bin:/bin",
		"KUBECONFIG=" + l.Kubeconfig,
		"BROWSER=" + filepath.Join(l.Home, "browser"),
		"DISPLAY=:0",
		"TMPDIR=" + l.Home,
	}
	return append(env, l.Env...)
}

// Command prepares a program on this laptop: a path, or a name on its PATH.
func (l *Laptop) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if !strings.Contains(program, "/") {
		bin, _ := Programs(ctx)
		for _, dir := range []string{bin, filepath.Dir(l.stack.ControlPlane.Bin("kubectl"))} {
			if path := filepath.Join(dir, program); isFile(path) {
				program = path
				break
			}
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = l.Home
	cmd.Env = l.Environ()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Run runs a program to its end.
func (l *Laptop) Run(ctx context.Context, program string, args ...string) Result {
	return l.run(l.Command(ctx, program, args...))
}

func (l *Laptop) run(cmd *exec.Cmd) Result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	res := Result{Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		res.Code = exit.ExitCode()
	default:
		res.Code = -1
		res.Stderr += err.Error()
	}
	return res
}

// ZT runs `kubectl zt ARGS` by its own name.
func (l *Laptop) ZT(ctx context.Context, args ...string) Result {
	return l.Run(ctx, "kubectl-zt", args...)
}

// Kubectl runs stock kubectl.
func (l *Laptop) Kubectl(ctx context.Context, args ...string) Result {
	return l.Run(ctx, "kubectl", args...)
}

// Login logs the laptop's person in at the stack's gateway.
func (l *Laptop) Login(ctx context.Context) error {
	if res := l.ZT(ctx, "login", l.stack.LoginURL); res.Code != 0 {
		return fmt.Errorf("kubectl zt login: %v", res)
	}
	return nil
}

// Connect logs in where needed and writes the context of a cluster.
func (l *Laptop) Connect(ctx context.Context, cluster string) error {
	if err := l.Login(ctx); err != nil {
		return err
	}
	if res := l.ZT(ctx, "connect", cluster); res.Code != 0 {
		return fmt.Errorf("kubectl zt connect %s: %v", cluster, res)
	}
	return nil
}

// Close ends the agent and the browser.
func (l *Laptop) Close() {
	l.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		l.ZT(ctx, "agent", "--stop")
		_ = l.fifo.Close()
		l.pages.Wait()
	})
}

// DeviceID is the id of this laptop's device, as `kubectl zt device status` says.
func (l *Laptop) DeviceID(ctx context.Context) (string, error) {
	res := l.ZT(ctx, "device", "status", "-o", "json")
	var status struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(res.Stdout), &status); err != nil || status.ID == "" {
		return "", fmt.Errorf("kubectl zt device status: %v", res)
	}
	return status.ID, nil
}

// ApproveDevice writes the administrator's manifest for this laptop: corporate
// and approved. It returns when the gateway has loaded it.
func (l *Laptop) ApproveDevice(ctx context.Context) error {
	id, err := l.DeviceID(ctx)
	if err != nil {
		return err
	}
	manifest := fmt.Sprintf("apiVersion: kube-zt.io/v1alpha1\nkind: Device\nmetadata:\n  name: %s\nspec:\n  ownership: corporate\n  approved: true\n", id)
	if err := l.stack.WriteManifest("device-"+id+".yaml", manifest); err != nil {
		return err
	}
	return l.stack.Reload(ctx)
}
