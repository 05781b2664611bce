package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// portForward forwards to servers of ours and closes one direction at a time.
func (g *streams) portForward(t *testing.T) {
	t.Run("up, end of the input, then the answer", func(t *testing.T) {
		t.Parallel()
		_, conn := g.forward(t, serve(t, func(c *net.TCPConn) {
			received := sha256.New()
			_, _ = io.Copy(received, c) // to the end that the client sends
			_, _ = io.WriteString(c, hex.EncodeToString(received.Sum(nil)))
		}))
		if _, err := conn.Write(g.bulk); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || string(answer) != sum(g.bulk) {
			t.Errorf("the server received %s, want %s (%v)", answer, sum(g.bulk), err)
		}
	})
	t.Run("down", func(t *testing.T) {
		t.Parallel()
		_, conn := g.forward(t, serve(t, func(c *net.TCPConn) { _, _ = c.Write(g.bulk) }))
		if g.kubectl == "kubectl-1.27" {
			// It keeps the end of what it got to itself until its client has ended
			// too, with zt and without.
			_ = conn.CloseWrite()
		}
		received, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(received, g.bulk) {
			t.Errorf("received %d bytes with sum %s, want %d with %s (%v)", len(received), sum(received), len(g.bulk), sum(g.bulk), err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		p, conn := g.forward(t, closedPort(t))
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("received %q", answer)
		}
		eventually(t, 10*time.Second, "kubectl says why", func() bool {
			return strings.Contains(p.stderr.String(), "connection refused")
		})
	})
}

// serve listens on a port of the pods, which is one of this host, and has f
// answer each connection.
func serve(t *testing.T, f func(*net.TCPConn)) (port int) {
	t.Helper()
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

// forward starts kubectl port-forward to a port of the pod idle, and connects.
func (g *streams) forward(t *testing.T, port int) (*process, *net.TCPConn) {
	t.Helper()
	p := g.start(t, "port-forward", "--address=127.0.0.1", "pod/idle", fmt.Sprintf(":%d", port))
	return p, p.dial(t)
}

// dial connects to what a kubectl port-forward listens on.
func (p *process) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	var match []string
	eventually(t, 20*time.Second, "kubectl forwards", func() bool {
		match = forwarding.FindStringSubmatch(p.stdout.String())
		if match == nil && p.over() {
			t.Fatalf("kubectl ended: %s", p.stderr.String())
		}
		return match != nil
	})
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(t.Context(), "tcp", match[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return conn.(*net.TCPConn)
}

// V140: many connections through one session, one of them to a port on which
// nobody listens: that one fails, the others do not notice, neither while they are
// idle nor while they are busy. Stock kubectl ends a whole port-forward of which one
// connection failed, so the bad port has a kubectl of its own; the session and its
// connection to the gateway are one.
//
// In the long form a session is idle for an hour while another is busy. Probes of
// as many idle connections, all at once, would overflow loopback's backlog of
// packets and end them: that is why the test's own ends of them send none.
func TestV140ManyForwardedConnections(t *testing.T) {
	t.Parallel()
	const forwards = 5
	type spell struct {
		name        string
		connections int
		idle, pause time.Duration // before and between the rounds
		rounds      int
	}
	spells := []spell{{name: "short", connections: 50, rounds: 20}}
	if soaking() {
		spells = []spell{
			{name: "busy", connections: 1000, pause: time.Second, rounds: 3600},
			{name: "idle", connections: 1000, idle: time.Hour, rounds: 1},
		}
	}
	s := world(t)
	for _, transport := range transports[:2] {
		for _, spell := range spells {
			t.Run(transport.name+" "+spell.name, func(t *testing.T) {
				t.Parallel()
				g := newStreams(t, s, admin(t, s), transport.kubectl, transport.upgrade)
				g.pod(t, "idle", corev1.Container{})
				echo := serve(t, func(c *net.TCPConn) {
					_, _ = io.Copy(c, struct{ io.Reader }{c}) // not spliced: that would open a pipe for each
				})
				var kubectls []*process
				var conns []*net.TCPConn
				for range forwards {
					p, conn := g.forward(t, echo)
					kubectls, conns = append(kubectls, p), append(conns, conn)
					for range spell.connections/forwards - 1 {
						conns = append(conns, p.dial(t))
					}
				}
				bad, conn := g.forward(t, closedPort(t))
				say := func(round int) {
					t.Helper()
					for i, c := range conns {
						_ = c.SetDeadline(time.Now().Add(20 * time.Second))
						if _, err := fmt.Fprintf(c, "%06d %06d\n", round, i); err != nil {
							t.Fatalf("round %d, connection %d: %v", round, i, err)
						}
					}
					got := make([]byte, 14)
					for i, c := range conns {
						want := fmt.Sprintf("%06d %06d\n", round, i)
						if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
							t.Fatalf("round %d, connection %d: %q, want %q (%v); kubectl says: %s", round, i, got, want, err,
								kubectls[i*forwards/len(conns)].stderr.String())
						}
					}
				}
				say(0)
				_, _ = io.WriteString(conn, "anybody?")
				if answer, _ := io.ReadAll(conn); len(answer) > 0 {
					t.Errorf("the bad port said %q", answer)
				}
				eventually(t, 10*time.Second, "kubectl says what is wrong with the bad port", func() bool {
					return strings.Contains(bad.stderr.String(), "connection refused")
				})
				time.Sleep(spell.idle)
				for round := range spell.rounds {
					say(round + 1)
					time.Sleep(spell.pause)
				}
				for _, p := range kubectls {
					if p.over() || p.stderr.String() != "" {
						t.Errorf("a kubectl of good connections says: %s", p.stderr.String())
					}
				}
			})
		}
	}
}
