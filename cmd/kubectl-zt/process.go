package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/browser"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

// exit is short for what every verb ends with.
type exit = fault.Exit

// process is the world around a command: commands touch nothing else of it.
type process struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	now      func() time.Time
	// Terminals, as far as they are ones.
	inTTY, errTTY bool
	binary        string
	parent        int
	browser       browser.Environment
	getwd         func() (string, error)
}

func host() *process {
	return &process{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, now: time.Now,
		inTTY: term.IsTerminal(int(os.Stdin.Fd())), errTTY: term.IsTerminal(int(os.Stderr.Fd())),
		binary: ownPath(os.Args[0]), parent: os.Getppid(), browser: browser.Host(), getwd: os.Getwd,
	}
}

// ownPath is an absolute path of this program that survives its update: the one
// by which it was called, for krew replaces what the link points to and removes
// the old version's directory.
func ownPath(arg0 string) string {
	if filepath.IsAbs(arg0) && filepath.Base(arg0) == "kubectl-zt" {
		return arg0 // as kubectl and kubeconfigs call it
	}
	self, err := os.Executable()
	if err != nil {
		return arg0
	}
	called := arg0
	if filepath.Base(arg0) == arg0 {
		if called, err = exec.LookPath(arg0); err != nil {
			return self
		}
	}
	called, err = filepath.Abs(called)
	if err != nil {
		return self
	}
	a, err1 := os.Stat(called)
	b, err2 := os.Stat(self)
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		return self
	}
	return called
}

// client talks to the agent on behalf of a verb. Progress and notices go to
// stderr, each the way that suits it.
func (p *process) client(o *rootOptions) (*agent.Client, error) {
	home, err := profile.Find(p.env)
	if err != nil {
		return nil, err
	}
	s := &status{w: p.err, tty: p.errTTY && p.env("TERM") != "dumb", verbose: o.verbose}
	o.status = s
	c := &agent.Client{
		Home: home, Version: version, Binary: p.binary,
		Progress: s.say, Notice: s.notice,
		Open: func(ctx context.Context, url string) error { return p.browser.Open(ctx, url) },
	}
	if o.verbose {
		c.Debug = s.notice
	}
	return c, nil
}

// request describes who is asking.
func (p *process) request(o *rootOptions, op agent.Op) agent.Request {
	req := agent.Request{
		Op: op, Profile: profile.Name(o.profile), Parent: p.parent, Verbose: o.verbose,
		Attended: p.inTTY && p.errTTY, Display: p.browser.Usable() == nil, QR: p.errTTY,
	}
	if aboutNetwork(op, req.Attended) {
		env := networkEnvironment()
		req.Environment = &env
	}
	return req
}

// aboutNetwork reports whether this shell's proxy is the person's latest word:
// what he types at a terminal to get somewhere, and the two verbs with which a
// script begins. What only looks, or is run by kubectl, changes nothing.
func aboutNetwork(op agent.Op, attended bool) bool {
	switch op {
	case agent.OpLogin, agent.OpTrust:
		return true
	case agent.OpCredential, agent.OpStatus, agent.OpLogout, agent.OpStop:
		return false
	}
	return attended
}

// ask is one request to the agent.
func (p *process) ask(ctx context.Context, o *rootOptions, op agent.Op, args, out any) error {
	c, err := p.client(o)
	if err != nil {
		return err
	}
	defer o.status.clear()
	return c.Get(ctx, p.request(o, op), args, out)
}

// networkEnvironment is how this shell gets out; the agent may have been started
// by one that does not know the proxy.
func networkEnvironment() tunnel.Environment { return tunnel.FromEnviron() }
