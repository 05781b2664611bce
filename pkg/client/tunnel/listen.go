package tunnel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// FlagRemote is the flag that allows an address beyond this machine; its name
// says what it does.
const FlagRemote = "--dangerously-listen-beyond-this-machine"

// selfCheckLimit is for one connection over loopback.
const selfCheckLimit = 2 * time.Second

// Listen binds addr and proves that who dials it reaches this process. remote
// allows addresses that are not loopback. Until Listen has returned without an
// error no kubeconfig may name the port (V070).
func Listen(ctx context.Context, addr string, remote bool) (net.Listener, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fault.New(fault.ExitUsage, "--listen 127.0.0.1:PORT", "%q is not IP:PORT", addr)
	}
	if !ap.Addr().IsLoopback() && !remote {
		return nil, fault.New(fault.ExitUsage, "--listen 127.0.0.1:"+fmt.Sprint(ap.Port()), "%s would let others on the network use your access; if that is what you want: %s", addr, FlagRemote)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.New(fault.ExitFailed, "choose another port with --port", "port %d is taken: %v", ap.Port(), err)
	}
	checked, err := selfCheck(ctx, l)
	if err != nil {
		l.Close()
		return nil, fault.New(fault.ExitUntrusted, "choose another port with --port", "port %d is served by another program: %v", ap.Port(), err)
	}
	return checked, nil
}

// selfCheck dials the listener and waits for that very connection. Nothing is
// sent over it: a squatter learns nothing.
func selfCheck(ctx context.Context, l net.Listener) (net.Listener, error) {
	target := l.Addr().(*net.TCPAddr).AddrPort()
	if target.Addr().IsUnspecified() {
		target = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), target.Port())
	}
	return checkThrough(ctx, l, target)
}

// checkThrough demands that whoever dials target reaches l.
func checkThrough(ctx context.Context, l net.Listener, target netip.AddrPort) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, selfCheckLimit)
	defer cancel()
	probe, err := (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
	if err != nil {
		return nil, err
	}
	defer probe.Close()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(selfCheckLimit)); err != nil {
		return nil, err
	}
	checked := &checkedListener{Listener: l}
	for {
		conn, err := l.Accept()
		if err != nil {
			checked.drop()
			return nil, fmt.Errorf("the connection did not arrive: %w", err)
		}
		if conn.RemoteAddr().String() == probe.LocalAddr().String() {
			conn.Close()
			return checked, l.(*net.TCPListener).SetDeadline(time.Time{})
		}
		checked.early = append(checked.early, conn) // somebody was quick
	}
}

// checkedListener hands out first who came during the check.
type checkedListener struct {
	net.Listener
	mu    sync.Mutex
	early []net.Conn
}

func (l *checkedListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	if len(l.early) > 0 {
		conn := l.early[0]
		l.early = slices.Delete(l.early, 0, 1)
		l.mu.Unlock()
		return conn, nil
	}
	l.mu.Unlock()
	return l.Listener.Accept()
}

func (l *checkedListener) Close() error {
	l.drop()
	return l.Listener.Close()
}

func (l *checkedListener) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.early {
		c.Close()
	}
	l.early = nil
}

// TCP is the listener underneath, for handing it to another process.
func TCP(l net.Listener) *net.TCPListener {
	if c, ok := l.(*checkedListener); ok {
		l = c.Listener
	}
	t, _ := l.(*net.TCPListener)
	return t
}
