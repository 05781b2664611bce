package agent

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

// ports are the listeners of the loopback proxy: one that kubeconfigs name, with
// a secret per profile, and those that a person opened beside it.
type ports struct {
	home  profile.Home
	proxy *tunnel.Proxy
	start func(func(context.Context))

	mu      sync.Mutex
	local   profile.Local
	main    *port
	problem *fault.Fault // why main is not served although a kubeconfig names it
	extra   []*port
	ended   bool // by shut
}

// port is one listener and who it serves.
type port struct {
	l    net.Listener
	open profile.Name // served without a secret; empty: with one
	// owner is the profile for which an extra port was opened.
	owner profile.Name
	once  sync.Once
	done  chan struct{} // closed when it is no longer served
	stop  chan struct{}
}

func (p *port) number() int { return int(p.addr().Port()) }

func (p *port) addr() netip.AddrPort { return p.l.Addr().(*net.TCPAddr).AddrPort() }

func (p *port) close() {
	p.once.Do(func() { close(p.stop) })
	<-p.done
}

// serve runs the proxy on l until the port is closed or the agent ends.
func (ps *ports) serve(l net.Listener, open, owner profile.Name) *port {
	p := &port{l: l, open: open, owner: owner, done: make(chan struct{}), stop: make(chan struct{})}
	ps.start(func(ctx context.Context) {
		defer close(p.done)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-p.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		_ = ps.proxy.Serve(ctx, l, string(open))
	})
	return p
}

// restore binds the port that kubeconfigs name already. Where somebody else has
// it now nothing is changed: the plugin will say that the port is stale, before
// kubectl sends a secret there.
func (ps *ports) restore(ctx context.Context) error {
	local, err := ps.home.LoadLocal()
	if err != nil {
		return err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.local = local
	if local.Port == 0 || len(local.Secrets) == 0 {
		return nil
	}
	ps.bind(ctx, local.Port)
	return nil
}

// bind tries one port. ps.mu is held.
func (ps *ports) bind(ctx context.Context, number int) {
	if ps.ended {
		ps.problem = ending()
		return
	}
	l, err := tunnel.Listen(ctx, fmt.Sprintf("127.0.0.1:%d", number), false)
	if err != nil {
		ps.problem = fault.Of(err)
		return
	}
	ps.main, ps.problem = ps.serve(l, "", ""), nil
}

// access returns port and secret for a kubeconfig of profile n. When the port had
// to change, every secret does: the old ones may have been sent to whoever has
// the old port.
func (ps *ports) access(ctx context.Context, n profile.Name) (int, string, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	local := ps.local
	if ps.main == nil && local.Port != 0 {
		ps.bind(ctx, local.Port)
	}
	for tries := 0; ps.main == nil && tries < 20; tries++ {
		local = profile.Local{}
		ps.bind(ctx, candidate())
	}
	if ps.main == nil {
		return 0, "", ps.problem
	}
	local.Port = ps.main.number()
	secrets := map[profile.Name]string{}
	for k, v := range local.Secrets {
		secrets[k] = v
	}
	if secrets[n] == "" {
		secrets[n] = newSecret()
	}
	local.Secrets = secrets
	if err := ps.home.SaveLocal(local); err != nil {
		return 0, "", err
	}
	ps.local = local
	return local.Port, secrets[n], nil
}

// candidate is below the range from which kernels give ports to outgoing
// connections: there nobody sits on it by accident when the agent comes back.
func candidate() int {
	const low, high = 17000, 32000
	n, err := rand.Int(rand.Reader, big.NewInt(high-low))
	if err != nil {
		return low
	}
	return low + int(n.Int64())
}

// newSecret has 256 bits and needs no escaping in a URL.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (ps *ports) secret(n profile.Name) string {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.local.Secrets[n]
}

// add opens another port. The zero owner of the address decides nothing: who may
// use it is open's business.
func (ps *ports) add(ctx context.Context, addr string, remote bool, open, owner profile.Name) (*port, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.extra {
		if p.addr().String() == addr && p.open == open && p.owner == owner {
			return p, nil
		}
	}
	if ps.ended {
		return nil, ending()
	}
	l, err := tunnel.Listen(ctx, addr, remote)
	if err != nil {
		return nil, err
	}
	p := ps.serve(l, open, owner)
	ps.extra = append(ps.extra, p)
	return p, nil
}

// drop closes the extra ports of a profile that match number, or all with 0, and
// says how many they were.
func (ps *ports) drop(n profile.Name, number int) int {
	ps.mu.Lock()
	var gone []*port
	ps.extra = slices.DeleteFunc(ps.extra, func(p *port) bool {
		match := p.owner == n && (number == 0 || p.number() == number)
		if match {
			gone = append(gone, p)
		}
		return match
	})
	ps.mu.Unlock()
	closeAll(gone)
	return len(gone)
}

// closeAll must be called without ps.mu: a connection that is being served may
// be waiting for it.
func closeAll(gone []*port) {
	for _, p := range gone {
		p.close()
	}
}

// forget withdraws a profile's secret and, with the last one, the port.
func (ps *ports) forget(n profile.Name) error {
	ps.drop(n, 0)
	ps.mu.Lock()
	if _, ok := ps.local.Secrets[n]; !ok {
		ps.mu.Unlock()
		return nil
	}
	secrets := map[profile.Name]string{}
	for k, v := range ps.local.Secrets {
		if k != n {
			secrets[k] = v
		}
	}
	ps.local.Secrets = secrets
	var gone []*port
	if len(secrets) == 0 && ps.main != nil {
		gone = append(gone, ps.main)
		ps.main = nil
	}
	local := ps.local
	ps.mu.Unlock()
	closeAll(gone)
	return ps.home.SaveLocal(local)
}

// numbers are the ports that a kubeconfig may rightly name.
func (ps *ports) numbers(ctx context.Context) []int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.again(ctx)
	return ps.numbersLocked()
}

// again tries the port that kubeconfigs name once more: whoever had it when the
// agent started may have had it for a moment. ps.mu is held.
func (ps *ports) again(ctx context.Context) {
	if ps.main == nil && ps.local.Port != 0 && len(ps.local.Secrets) > 0 {
		ps.bind(ctx, ps.local.Port)
	}
}

// ending is for a request that comes with the agent's last breath.
func ending() *fault.Fault { return fault.New(fault.ExitFailed, "try again", "the agent is ending") }

// shut closes every port, for good.
func (ps *ports) shut() {
	ps.mu.Lock()
	gone := ps.extra
	if ps.main != nil {
		gone = append(gone, ps.main)
	}
	ps.main, ps.extra, ps.ended = nil, nil, true
	ps.mu.Unlock()
	closeAll(gone)
}

func (ps *ports) numbersLocked() []int {
	var out []int
	if ps.main != nil {
		out = append(out, ps.main.number())
	}
	for _, p := range ps.extra {
		out = append(out, p.number())
	}
	return out
}

// own are all ports that are ours, also those to be bound: for the dialer, which
// must not go out through itself.
func (ps *ports) own() []int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return append(ps.numbersLocked(), ps.local.Port)
}

func (ps *ports) status(ctx context.Context) []PortStatus {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.again(ctx)
	var out []PortStatus
	if ps.main != nil {
		out = append(out, PortStatus{Address: ps.main.addr().String()})
	} else if ps.problem != nil {
		out = append(out, PortStatus{Address: fmt.Sprintf("127.0.0.1:%d", ps.local.Port), Problem: ps.problem.What})
	}
	for _, p := range ps.extra {
		out = append(out, PortStatus{Address: p.addr().String(), Open: p.open != ""})
	}
	return out
}

func (ps *ports) idle() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.extra) == 0
}
