package agent_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kube-zt/zt/pkg/client/agent"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session/gatewaytest"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/test/idp"
)

// corporate is a proxy of the kind that stands before the internet: whatever name
// is asked for, it leads to the gateway.
type corporate struct {
	url  string
	seen atomic.Int64
}

func newCorporate(t *testing.T, target string) *corporate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &corporate{url: "http://" + l.Addr().String()}
	var all sync.WaitGroup
	carry := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		far, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		c.seen.Add(1)
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		all.Go(func() {
			_, _ = io.Copy(far, r)
			far.Close()
		})
		_, _ = io.Copy(conn, far)
	}
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { carry(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return c
}

// from is a request out of a shell with that proxy.
func from(proxy string, op agent.Op) agent.Request {
	req := attended(op)
	req.Environment = &tunnel.Environment{HTTPSProxy: proxy}
	return req
}

func TestTheShellsProxyReachesTheAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t, idp.Options{})
	// Addresses of this machine never go through a proxy, a name does.
	direct := strings.TrimPrefix(r.gw.URL(), "https://")
	args := agent.TrustArgs{Gateway: "https://gw." + gatewaytest.Domain + ":443", Pin: pinOf(r)}
	first, second := newCorporate(t, direct), newCorporate(t, direct)
	t.Cleanup(r.kill) // before the proxies go

	// The first command of all is behind it already.
	if err := r.get(from(first.url, agent.OpTrust), args, nil); err != nil {
		t.Fatal(err)
	}
	r.login() // by a command that says nothing about the network
	access := r.access()
	before := first.seen.Load()

	// A shell that was told to use the tunnel says nothing about the way out, nor
	// does one that was told so of a port that is no longer ours.
	for _, own := range []string{
		fmt.Sprintf("http://%s:%s@127.0.0.1:%d", access.Profile, access.Secret, access.Port),
		fmt.Sprintf("http://localhost:%d", access.Port), fmt.Sprintf("http://%s:x@127.0.0.1:1", access.Profile),
	} {
		if err := r.get(from(own, agent.OpTrust), args, nil); err != nil {
			t.Fatalf("%s: %v", own, err)
		}
		if now := first.seen.Load(); now <= before {
			t.Errorf("%s: the corporate proxy was given up", own)
		} else {
			before = now
		}
	}

	// Another one: the warm connection, too, is made anew.
	if err := r.get(from(second.url, agent.OpClusters), nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the edge is reached by the new proxy", func() bool { return second.seen.Load() > 0 })
	if now := first.seen.Load(); now != before {
		t.Errorf("the old proxy was asked %d times more", now-before)
	}

	// And none.
	err := r.get(from("", agent.OpTrust), args, nil)
	if f := wantFault(t, err, fault.ExitUnreachable, "cannot be reached"); strings.Contains(f.What, "proxy") {
		t.Errorf("the proxy was not taken back: %v", f)
	}
}
