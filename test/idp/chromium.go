package idp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrNoChromium means that there is no Chromium here and none can be installed.
var ErrNoChromium = errors.New("no chromium on this computer, and not root on a Debian to install it")

// FindChromium looks for a Chromium, and installs Debian's where that is
// possible: as root, with apt-get. That takes a minute or two.
func FindChromium(ctx context.Context) (string, error) {
	look := func() string {
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		return ""
	}
	if path := look(); path != "" {
		return path, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return "", ErrNoChromium
	}
	for _, args := range [][]string{{"update", "-q"}, {"install", "-q", "-y", "--no-install-recommends", "chromium"}} {
		cmd := exec.CommandContext(ctx, apt, append([]string{"-o", "DPkg::Lock::Timeout=600"}, args...)...) //nolint:gosec // fixed arguments
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("install chromium: %w: %s", err, tail(out))
		}
	}
	if path := look(); path != "" {
		return path, nil
	}
	return "", ErrNoChromium
}

// Chromium is a real browser without a screen, with a profile of its own that is
// deleted on Close. It trusts the provider's certificate and nobody else's.
type Chromium struct {
	user     func(string) (User, bool)
	origin   string
	dir      string
	cmd      *exec.Cmd
	exited   chan error
	output   *bytes.Buffer // complete once exited
	devtools *devtools
}

// Chromium starts program, as FindChromium returns it. Close it.
func (p *Provider) Chromium(ctx context.Context, program string) (*Chromium, error) {
	dir, err := os.MkdirTemp("", "zt-chromium-")
	if err != nil {
		return nil, fmt.Errorf("start chromium: %w", err)
	}
	c := &Chromium{user: p.User, origin: p.issuer, dir: dir, exited: make(chan error, 1), output: &bytes.Buffer{}}
	c.cmd = exec.CommandContext(ctx, program, //nolint:gosec // the caller's choice
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--no-default-browser-check", "--no-proxy-server",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-breakpad", "--disable-crash-reporter", "--disable-extensions", "--disable-default-apps",
		"--metrics-recording-only", "--password-store=basic", "--use-mock-keychain",
		"--ignore-certificate-errors-spki-list="+p.authority.leafSPKI,
		"--user-data-dir="+filepath.Join(dir, "profile"),
		"--remote-debugging-port=0",
		"about:blank")
	// Whatever it wants to write to a home goes with the profile.
	c.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	c.cmd.WaitDelay = 5 * time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start chromium: %w", err), os.RemoveAll(dir))
	}
	go func() { c.exited <- c.cmd.Wait() }()
	if err := c.connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start chromium: %w", err), c.Close())
	}
	return c, nil
}

// connect waits for the port that Chromium writes into its profile.
func (c *Chromium) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var address string
	err := poll(ctx, func() (bool, error) {
		select {
		case err := <-c.exited:
			c.exited <- err
			return false, fmt.Errorf("it ended: %w: %s", err, tail(c.output.Bytes()))
		default:
		}
		b, err := os.ReadFile(filepath.Join(c.dir, "profile", "DevToolsActivePort"))
		port, path, ok := strings.Cut(strings.TrimSpace(string(b)), "\n")
		if err != nil || !ok {
			return false, nil // not yet
		}
		address = "ws://127.0.0.1:" + port + path
		return true, nil
	})
	if err != nil {
		return err
	}
	c.devtools, err = dialDevtools(ctx, address)
	return err
}

// Close ends the browser and deletes its profile.
func (c *Chromium) Close() error {
	if c.devtools != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.devtools.call(ctx, "", "Browser.close", nil, nil)
	}
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	select {
	case <-c.exited:
	case <-patience.C:
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	if c.devtools != nil {
		c.devtools.close()
	}
	// Its helpers end a moment after it and may still write.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var left error
	_ = poll(ctx, func() (bool, error) { left = os.RemoveAll(c.dir); return left == nil, nil })
	return left
}

// Login signs user in at authURL with keyboard and mouse and returns the
// loopback page where that ends.
func (c *Chromium) Login(ctx context.Context, authURL, user string) (Page, error) {
	t, err := c.Open(ctx, authURL)
	if err != nil {
		return Page{}, fmt.Errorf("chromium as %q: %w", user, err)
	}
	u, ok := c.user(user)
	if !ok {
		return Page{}, fmt.Errorf("chromium: unknown user %q", user)
	}
	known := map[string]string{"username": u.Login, "password": u.Password, "code": u.Code}
	for range 10 {
		page, err := t.Page(ctx)
		if err != nil {
			return page, fmt.Errorf("chromium as %q: %w", user, err)
		}
		if !strings.HasPrefix(page.URL, c.origin+"/") {
			return page, nil
		}
		if err := t.submit(ctx, page, known); err != nil {
			return page, fmt.Errorf("chromium as %q at %q: %w", user, page.Title, err)
		}
	}
	return Page{}, fmt.Errorf("chromium as %q: too many pages", user)
}

// poll asks until done, an error, or the end of ctx.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tail is the end of a program's output, for an error.
func tail(b []byte) string {
	const most = 2000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return strings.TrimSpace(string(b))
}
