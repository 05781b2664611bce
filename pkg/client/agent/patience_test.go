package agent_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/test/idp"
)

// A stopped agent takes connections, for the kernel does, and says nothing.
func TestStoppedAgentHoldsNobodyForEver(t *testing.T) {
	t.Parallel()
	home := profile.Home{Dir: filepath.Join(t.TempDir(), "zt")}
	home.Run = filepath.Join(home.Dir, "run")
	if err := home.Prepare(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", home.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, hurried := range []bool{false, true} {
		c := agent.Client{Home: home, NoSpawn: true, Hurried: hurried, Patience: 100 * time.Millisecond}
		_, err := c.Do(t.Context(), agent.Request{Op: agent.OpStatus}, nil)
		f := wantFault(t, err, fault.ExitUnreachable, "the agent does not answer")
		if len(f.Hints) != 1 || f.Hints[0] != "kubectl zt agent --stop" {
			t.Errorf("%q", f.Hints)
		}
	}
}

// A login may take minutes: its client hears that the agent lives.
func TestWaitingClientHearsThatTheAgentLives(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.ignore.Store(true)
	c := r.client()
	c.Patience = 7 * time.Second // longer than one breath, shorter than two
	failed := make(chan error, 1)
	go func() { failed <- c.Get(t.Context(), attended(agent.OpLogin), agent.LoginArgs{}, nil) }()
	eventually(t, "the page opens", func() bool { return r.opened.Load() == 1 })
	select {
	case err := <-failed:
		t.Errorf("not waited for: %v", err)
	case <-time.After(8 * time.Second): // there is no other sign of patience
	}
	r.kill()
	<-failed
}

// Who asks for everything and reads nothing delays nobody else.
func TestVerboseClientThatDoesNotReadDelaysNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	r.trust()
	r.login()
	conn, err := net.Dial("unix", r.home.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.UnixConn).SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	// It waits at a page that nobody looks at, so it stays subscribed.
	r.ignore.Store(true)
	request := fmt.Sprintf(`{"protocol":%d,"op":"login","profile":"zt.test","attended":true,"verbose":true,"args":{"force":true}}`, agent.Protocol)
	if _, err := conn.Write(append(append([]byte{'q'}, binary.BigEndian.AppendUint32(nil, uint32(len(request)))...), request...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its login is under way", func() bool { return r.idp.Counters().Discoveries >= 2 })
	var slowest time.Duration
	host := strings.Repeat("x", 240) + ".zt.test" // each refusal is a line of that length
	access := r.access()
	for range 1500 { // more than its socket and its queue take
		began := time.Now()
		conn, _ := r.rawConnect(access, host)
		conn.Close()
		slowest = max(slowest, time.Since(began))
	}
	if n := strings.Count(r.log.String(), "CONNECT refused"); n < 1500 {
		t.Fatalf("the test does not reach what it is about: %d lines", n)
	}
	if slowest > agent.WriteLimit/2 {
		t.Errorf("somebody else waited %s", slowest)
	}
}
