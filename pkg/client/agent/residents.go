package agent

import (
	"context"
	"net"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/client/tunnel"
)

// resident is a session that lives in the agent.
type resident struct {
	*session.Session
	stop chan struct{}
	done chan struct{}
}

// session returns the profile's session, and brings it to life at first use.
func (a *Agent) session(n profile.Name) (*resident, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n != "" {
		if r := a.sessions[n]; r != nil {
			return r, nil
		}
	}
	p, err := a.cfg.Home.Choose(n)
	if err != nil {
		return nil, err
	}
	if r := a.sessions[p.Name]; r != nil {
		return r, nil
	}
	s, err := session.New(a.deps(), p)
	if err != nil {
		return nil, err
	}
	return a.settle(s), nil
}

// settle starts a session's life. a.mu is held.
func (a *Agent) settle(s *session.Session) *resident {
	r := &resident{Session: s, stop: make(chan struct{}), done: make(chan struct{})}
	a.sessions[s.Profile().Name] = r
	// Not through a.run from under a.mu: Run's loop must stay free to take it.
	go a.run(func(ctx context.Context) {
		defer close(r.done)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-r.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		_ = s.Run(ctx)
	})
	return r
}

// evict ends a session's life, so that it is made anew from its profile.
func (a *Agent) evict(n profile.Name) {
	a.mu.Lock()
	r := a.sessions[n]
	delete(a.sessions, n)
	a.mu.Unlock()
	if r != nil {
		close(r.stop)
		select {
		case <-r.done:
		case <-a.finished:
		}
	}
}

func (a *Agent) deps() session.Deps {
	d := session.Deps{
		Home: a.cfg.Home, Log: a.log, Now: a.cfg.Now, Version: a.cfg.Version,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialer := tunnel.Dialer{Env: *a.env.Load(), OwnPorts: a.ports.own}
			return dialer.DialContext(ctx, network, addr)
		},
		InUse: func(n profile.Name) map[string]int { return a.proxy.InUse(string(n)) },
	}
	if a.cfg.Deps != nil {
		a.cfg.Deps(&d)
	}
	return d
}

// route finds the profile of a CONNECT.
func (a *Agent) route(name string) (tunnel.Route, string) {
	n := profile.Name(name)
	if !n.Valid() {
		return nil, ""
	}
	secret := a.ports.secret(n)
	r, err := a.session(n)
	if err != nil {
		return nil, ""
	}
	return r.Session, secret
}

// addressed makes the hints of a request for profile n mean that profile, also
// where it is not the current one. Whoever makes a hint need not know.
func (a *Agent) addressed(n profile.Name, f *fault.Fault) *fault.Fault {
	if n == "" || a.cfg.Home.Means(n) {
		return f
	}
	return f.ForProfile(string(n))
}
