package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/browser"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/wire"
)

// Ctrl-C ends a question, too: the terminal's reader cannot be called off.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	in, typing := io.Pipe()
	defer typing.Close()
	p := &process{in: in, err: io.Discard, inTTY: true, errTTY: true}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if err := confirm(ctx, p, "Really?"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for answer, want := range map[string]error{"y\n": nil, "Yes\n": nil, "n\n": errDeclined, "\n": errDeclined, "": errDeclined} {
		var asked bytes.Buffer
		p := &process{in: strings.NewReader(answer), err: &asked, inTTY: true, errTTY: true}
		if err := confirm(t.Context(), p, "Really?"); !errors.Is(err, want) || asked.String() != "Really? [y/N] " {
			t.Errorf("%q: %v after %q", answer, err, asked.String())
		}
	}
}

// login offers the code to who has no display, where the gateway allows it.
func TestDeviceCodeIsOffered(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "zt")
	env := func(key string) string { return map[string]string{"ZT_HOME": dir}[key] }
	home, err := profile.Find(env)
	if err != nil {
		t.Fatal(err)
	}
	if err := home.Prepare(); err != nil {
		t.Fatal(err)
	}
	for n, allowed := range map[profile.Name]bool{"yes.test": true, "no.test": false} {
		if err := home.Save(&profile.Profile{Name: n, OIDC: wire.OIDC{DeviceCode: allowed}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		profile, browser string
		want             bool
	}{
		{"yes.test", "none", true}, {"no.test", "none", false}, {"unknown.test", "none", false}, {"yes.test", "page", false},
	} {
		p := &process{env: env, browser: browser.Environment{
			GOOS:     "linux",
			Getenv:   func(key string) string { return map[string]string{"BROWSER": tc.browser}[key] },
			LookPath: func(name string) (string, error) { return "/bin/" + name, nil },
		}}
		if got := offerDeviceCode(p, &rootOptions{profile: tc.profile}); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

// The shell's proxy is the person's word where he goes somewhere, and nothing that
// kubectl or a look around should change.
func TestWhoSpeaksForTheNetwork(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		op       agent.Op
		attended bool
		want     bool
	}{
		{agent.OpLogin, false, true},
		{agent.OpTrust, false, true},
		{agent.OpConnect, true, true},
		{agent.OpEnroll, true, true},
		{agent.OpAccess, true, true},
		{agent.OpClusters, false, false},
		{agent.OpCredential, true, false},
		{agent.OpStatus, true, false},
		{agent.OpStop, true, false},
	} {
		p := &process{env: func(string) string { return "" }, inTTY: tc.attended, errTTY: tc.attended, browser: browser.Host()}
		if got := p.request(&rootOptions{}, tc.op).Environment != nil; got != tc.want {
			t.Errorf("%s, attended %v: %v", tc.op, tc.attended, got)
		}
	}
}
