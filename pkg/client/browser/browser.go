// Package browser shows a person a page: it decides whether there is a browser
// on this computer that could reach a loopback redirect, and opens an address
// in it.
//
// The address may come from a server. Only https is opened, a program is started
// without a shell and with the address as one argument that cannot be taken for
// an option, and what the program prints goes nowhere: stdout belongs to the
// ExecCredential, stderr to us.
package browser

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/pkg/browser"
)

// patience is how long Open waits for a browser that fails. One that runs on
// has opened the page: some openers return at once, some live as long as their
// window.
const patience = 2 * time.Second

// Environment is what decides about browsers. Use Host for this computer's.
type Environment struct {
	// GOOS is the operating system, as in package runtime.
	GOOS string
	// Getenv reads an environment variable; empty means not set.
	Getenv func(string) string
	// LookPath finds a program.
	LookPath func(string) (string, error)

	system func(url string) error // opens in the system's browser
}

// Host is this computer.
func Host() Environment {
	return Environment{GOOS: runtime.GOOS, Getenv: os.Getenv, LookPath: exec.LookPath, system: openSystem}
}

// Usable says why there is no browser to sign in with, or nil. $BROWSER decides
// where it is set: a remote development environment sets it to a helper that
// opens the page, and forwards the port, at the person's own screen; "none"
// means none. Otherwise a remote shell has no browser that could reach this
// computer's loopback address, and a Unix needs a display.
func (e Environment) Usable() error {
	if e.Getenv("BROWSER") != "" {
		_, err := e.chosen("https://example.com/")
		return err
	}
	for _, v := range []string{"SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"} {
		if e.Getenv(v) != "" {
			return fmt.Errorf("this is a remote shell (%s is set)", v)
		}
	}
	switch e.GOOS {
	case "darwin", "windows":
		return nil
	}
	// The browser of Windows reaches a loopback port of WSL.
	if e.Getenv("DISPLAY") == "" && e.Getenv("WAYLAND_DISPLAY") == "" && e.Getenv("WSL_DISTRO_NAME") == "" {
		return errors.New("there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)")
	}
	for _, opener := range openers {
		if _, err := e.LookPath(opener); err == nil {
			return nil
		}
	}
	return fmt.Errorf("there is no program to open a browser with (%s)", strings.Join(openers, ", "))
}

// openers are those that pkg/browser tries on a Unix.
var openers = []string{"xdg-open", "x-www-browser", "www-browser"}

// Open shows address, an https URL. It returns when the browser was told, when
// that failed, or when ctx ends; the browser itself lives on.
func (e Environment) Open(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return errors.New("open browser: not an https address")
	}
	run := func() error { return e.system(address) }
	if e.Getenv("BROWSER") != "" {
		argv, err := e.chosen(address)
		if err != nil {
			return fmt.Errorf("open browser: %w", err)
		}
		run = exec.Command(argv[0], argv[1:]...).Run //nolint:gosec,noctx // the person's own choice; outlives us
	}
	done := make(chan error, 1)
	go func() { done <- run() }() // ends with the browser, which is not ours to end
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("open browser: %w", err)
		}
		return nil
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// chosen is the first program of $BROWSER that exists, with its arguments. The
// variable is a list separated by colons, as xdg-open and Python read it; "%s"
// in an entry stands for the address, which is otherwise the last argument.
func (e Environment) chosen(address string) ([]string, error) {
	value := e.Getenv("BROWSER")
	if strings.EqualFold(value, "none") {
		return nil, errors.New("$BROWSER is none")
	}
	entries := []string{value} // a path of Windows has a colon in it
	if e.GOOS != "windows" {
		entries = strings.Split(value, ":")
	}
	for _, entry := range entries {
		argv := strings.Fields(entry)
		if len(argv) == 0 {
			continue
		}
		program, err := e.LookPath(argv[0])
		if err != nil {
			continue
		}
		argv[0] = program
		return withAddress(argv, address), nil
	}
	return nil, fmt.Errorf("no program of $BROWSER (%q) was found", value)
}

// withAddress puts the address where the entry wants it. It begins with
// "https://", so no program takes it for an option.
func withAddress(argv []string, address string) []string {
	placed := false
	for i := 1; i < len(argv); i++ {
		if strings.Contains(argv[i], "%s") {
			argv[i] = strings.ReplaceAll(argv[i], "%s", address)
			placed = true
		}
	}
	if !placed {
		argv = append(argv, address)
	}
	return argv
}

// openSystem is pkg/browser without its two writers.
func openSystem(address string) error {
	quiet()
	return browser.OpenURL(address)
}

// quiet sets pkg/browser's package variables. With nil the child gets the null
// device, where any other writer would be a pipe that ties its life to ours.
var quiet = sync.OnceFunc(func() { browser.Stdout, browser.Stderr = nil, nil })
