package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/kube-zt/zt/pkg/client/device"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/wire"
)

// perform does what the client asked for.
func (a *Agent) perform(ctx context.Context, c *conversation) (any, error) {
	switch c.req.Op {
	case OpCredential:
		return a.credential(ctx, c)
	case OpTrust:
		return a.trust(ctx, c)
	case OpLogin:
		return a.login(ctx, c)
	case OpLogout:
		return a.logout(ctx, c)
	case OpClusters:
		return a.clusters(ctx, c)
	case OpConnect:
		return a.connect(ctx, c)
	case OpAccess:
		return a.access(ctx, c)
	case OpStatus:
		return a.status(ctx)
	case OpTunnel:
		return a.tunnel(ctx, c)
	case OpDevice:
		return a.device(ctx, c)
	case OpEnroll:
		return a.enroll(ctx, c)
	case OpRepin:
		return a.repin(ctx, c)
	}
	return nil, fault.New(fault.ExitFailed, "kubectl zt agent --stop", "the agent (%s) does not know %q", a.cfg.Version, string(c.req.Op))
}

// trust makes first contact, or looks again at a gateway that is known.
func (a *Agent) trust(ctx context.Context, c *conversation) (any, error) {
	in, err := args[TrustArgs](c)
	if err != nil {
		return nil, err
	}
	c.progress("asking the gateway who it is")
	p, err := session.Meet(ctx, a.deps(), in.Gateway, in.Pin)
	if err != nil {
		return nil, err
	}
	if in.Name != "" {
		p.Name = in.Name
	}
	if !p.Name.Valid() {
		return nil, fault.New(fault.ExitUsage, "", "profile name %q is not lower-case letters, digits, '-' and '.'", string(p.Name))
	}
	res := TrustResult{
		Profile: p.Name, Gateway: p.Gateway, Fingerprint: session.Fingerprint(p.GatewayCA), Pinned: p.Pin != "",
		Issuer: p.OIDC.Issuer, TrustDomain: p.TrustDomain,
	}
	old, err := a.cfg.Home.Load(p.Name)
	var f *fault.Fault
	switch {
	case err == nil:
		if res.Changes = session.Changes(old, p); len(res.Changes) > 0 && !in.Accept {
			return res, nil
		}
		p.Clusters, p.Kubeconfigs = old.Clusters, old.Kubeconfigs
		if p.Pin == "" && old.Pin != "" && session.Fingerprint(p.GatewayCA) == session.Fingerprint(old.GatewayCA) {
			p.Pin = old.Pin // a pin once given is not lost by leaving it out
		}
	case errors.As(err, &f) && f.Exit == fault.ExitUntrusted && f.Hints != nil:
		res.New = true
		p.Clusters = map[wire.ClusterName]profile.ClusterPin{}
	default:
		return nil, err
	}
	if err := a.cfg.Home.Save(p); err != nil {
		return nil, err
	}
	if res.New || len(res.Changes) > 0 || old.Gateway != p.Gateway || old.Pin != p.Pin {
		a.evict(p.Name) // a session with what the gateway was is none with what it is
	}
	res.Saved = true
	res.Was, err = a.makeCurrent(p.Name)
	return res, err
}

// makeCurrent lets commands without --profile mean n, and returns what they meant
// before where the person should hear of the change.
func (a *Agent) makeCurrent(n profile.Name) (was profile.Name, err error) {
	if p, err := a.cfg.Home.Choose(""); err == nil && p.Name != n {
		was = p.Name
	}
	return was, a.cfg.Home.SetCurrent(n)
}

// login is asked for by name: no budget, and it may be had again.
func (a *Agent) login(ctx context.Context, c *conversation) (any, error) {
	in, err := args[LoginArgs](c)
	if err != nil {
		return nil, err
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	n := r.Profile().Name
	if !in.Force && r.LoggedIn() && r.Ready(ctx) == nil {
		was, err := a.makeCurrent(n)
		return LoginResult{Already: true, Status: r.Status(), Was: was}, err
	}
	a.budget.restore(string(r.Profile().OIDC.Issuer))
	if err := a.logins.join(ctx, r.Session, c, in.deviceCode(), nil); err != nil {
		return nil, err
	}
	was, err := a.makeCurrent(n)
	return LoginResult{Status: r.Status(), Was: was}, err
}

func (a *Agent) logout(ctx context.Context, c *conversation) (any, error) {
	in, err := args[LogoutArgs](c)
	if err != nil {
		return nil, err
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	p := r.Profile()
	c.progress("ending the session")
	// A person who will not wait has still asked for the end; each of those who
	// are told of it has a limit of his own.
	res := LogoutResult{Profile: p.Name, Farewell: r.Logout(context.WithoutCancel(ctx))}
	if err := a.ports.forget(p.Name); err != nil {
		return nil, err
	}
	a.evict(p.Name)
	// A file that was not cleaned stays noted, for the next logout.
	done, answered := c.clean(ctx, p.Name, p.Kubeconfigs)
	next := p.Clone()
	next.Kubeconfigs = slices.DeleteFunc(next.Kubeconfigs, func(f string) bool { return slices.Contains(done, f) })
	if in.Forget && answered {
		err = a.cfg.Home.Forget(p.Name)
	} else {
		err = a.cfg.Home.Save(next)
	}
	if err == nil && !a.anybody() {
		a.Stop() // with nobody logged in there is nothing to stay for
	}
	return res, err
}

// anybody reports whether a session is left.
func (a *Agent) anybody() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.sessions {
		if r.LoggedIn() {
			return true
		}
	}
	return false
}

func (a *Agent) clusters(ctx context.Context, c *conversation) (any, error) {
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	list, err := r.Clusters(ctx)
	return wire.ClusterList{Clusters: list}, err
}

// connect brings a person to a cluster: login if there is none, a token, and the
// way up to the cluster tried.
func (a *Agent) connect(ctx context.Context, c *conversation) (any, error) {
	in, err := args[ClusterArgs](c)
	if err != nil {
		return nil, err
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	if err := a.ensure(ctx, r, c, true); err != nil {
		return nil, err
	}
	c.progress("asking for " + string(in.Cluster))
	cluster, err := r.Cluster(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	if _, _, err := r.Token(ctx, in.Cluster); err != nil {
		return nil, err
	}
	c.progress("opening the tunnel")
	t := tunnel.Target{Host: r.Profile().Host(in.Cluster)}
	stream, err := r.Open(ctx, &t)
	if err != nil {
		return nil, tunnel.Refused(err)
	}
	stream.Abort() // that it opens is all we wanted to know
	return cluster, nil
}

// access is asked before a kubeconfig is written.
func (a *Agent) access(ctx context.Context, c *conversation) (any, error) {
	in, err := args[AccessArgs](c)
	if err != nil {
		return nil, err
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	list, err := r.Clusters(ctx)
	if err != nil {
		return nil, err
	}
	p := r.Profile()
	res := AccessResult{Profile: p.Name, Domain: p.Domain}
	for _, n := range in.Clusters {
		if !slices.ContainsFunc(list, func(cl wire.Cluster) bool { return cl.Name == n }) {
			return nil, fault.New(fault.ExitRefused, "kubectl zt clusters", "there is no cluster %q for you", string(n))
		}
	}
	for _, cl := range list {
		named := slices.Contains(in.Clusters, cl.Name)
		if len(in.Clusters) > 0 && !named {
			continue
		}
		entry := AccessEntry{Name: cl.Name, Host: p.Host(cl.Name), CA: cl.CA}
		switch err := r.Check(cl); {
		case err != nil && named:
			return nil, err
		case err != nil: // one that is bad must not keep a person from the others
			res.Refused = append(res.Refused, AccessRefusal{cl.Name, *a.addressed(c.req.Profile, fault.Of(err))})
		case cl.Hidden && !named:
			res.Hidden = append(res.Hidden, entry)
		default:
			res.Clusters = append(res.Clusters, entry)
		}
	}
	if res.Port, res.Secret, err = a.ports.access(ctx, p.Name); err != nil {
		return nil, err
	}
	err = r.NoteKubeconfig(in.File)
	res.Kubeconfigs = r.Profile().Kubeconfigs
	return res, err
}

func (a *Agent) status(ctx context.Context) (any, error) {
	current, err := a.cfg.Home.Current()
	if err != nil {
		return nil, err
	}
	names, err := a.cfg.Home.List()
	if err != nil {
		return nil, err
	}
	res := StatusResult{
		Version: a.cfg.Version, Protocol: Protocol, PID: os.Getpid(), Started: a.started, Current: current, Ports: a.ports.status(ctx),
		Sessions: []session.Status{},
	}
	for _, n := range names {
		r, err := a.session(n)
		if err != nil {
			res.Sessions = append(res.Sessions, session.Status{Profile: string(n), Why: fault.Of(err).What})
			continue
		}
		res.Sessions = append(res.Sessions, r.Status())
	}
	return res, nil
}

// seedPort is where a secretless port stands that nobody gave a number.
const seedPort = 8081

func (a *Agent) tunnel(ctx context.Context, c *conversation) (any, error) {
	in, err := args[TunnelArgs](c)
	if err != nil {
		return nil, err
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	n := r.Profile().Name
	res := TunnelResult{Profile: n, Secret: a.ports.secret(n)}
	switch {
	case in.Close:
		if a.ports.drop(n, in.Port) == 0 {
			return nil, fault.New(fault.ExitFailed, "kubectl zt tunnel", "no such port is open for %s", string(n))
		}
	case in.Open || in.Listen != "":
		if res.Opened, err = a.openPort(ctx, r, in); err != nil {
			return nil, err
		}
	default: // --env, or just a look
		if res.Opened, res.Secret, err = a.ports.access(ctx, n); err != nil {
			return nil, err
		}
	}
	res.Ports = a.ports.status(ctx)
	return res, nil
}

// openPort opens the port that the person wants and the cluster allows.
func (a *Agent) openPort(ctx context.Context, r *resident, in TunnelArgs) (int, error) {
	if in.Open && !a.ownersKnown {
		return 0, fault.New(fault.ExitFailed, "kubectl zt tunnel --env", "this system does not tell whose a connection is, so a port without a secret would be open to all its users")
	}
	number, ip := in.Port, netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if in.Listen != "" {
		at, err := netip.ParseAddrPort(in.Listen)
		if err != nil {
			return 0, fault.New(fault.ExitUsage, "--listen 127.0.0.1:PORT", "%q is not IP:PORT", in.Listen)
		}
		number, ip = int(at.Port()), at.Addr()
	}
	if in.Cluster != "" {
		cluster, err := r.Cluster(ctx, in.Cluster)
		if err != nil {
			return 0, err
		}
		switch {
		case cluster.ListenPort != 0 && number == 0:
			number = cluster.ListenPort
		case cluster.ListenPort != 0 && cluster.ListenPortFixed && number != cluster.ListenPort:
			return 0, fault.New(fault.ExitRefused, fmt.Sprintf("use port %d", cluster.ListenPort), "cluster %s fixes its port: %d", string(in.Cluster), cluster.ListenPort)
		}
	}
	if number == 0 && in.Listen == "" {
		number = seedPort
	}
	addr := netip.AddrPortFrom(ip, uint16(number)).String()
	n := r.Profile().Name
	open := profile.Name("")
	if in.Open {
		open = n
		if in.Remote {
			return 0, fault.New(fault.ExitUsage, "", "a port without a secret serves this user on this machine only")
		}
	} else if _, _, err := a.ports.access(ctx, n); err != nil { // the secret it demands
		return 0, err
	}
	p, err := a.ports.add(ctx, addr, in.Remote, open, n)
	if err != nil {
		return 0, err
	}
	return p.number(), nil
}

func (a *Agent) device(ctx context.Context, c *conversation) (any, error) {
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	key, err := device.Open(a.cfg.Home, r.Profile().Name)
	if err != nil {
		return nil, err
	}
	res := DeviceResult{ID: key.ID, Thumbprint: key.Thumbprint, Tier: key.Tier}
	if r.LoggedIn() {
		state, err := r.Device(ctx)
		if err != nil {
			return nil, err
		}
		res.Gateway = &state
	}
	return res, nil
}

func (a *Agent) enroll(ctx context.Context, c *conversation) (any, error) {
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	p := &pending{followers: []*conversation{c}}
	state, err := r.Enroll(ctx, session.Prompt{
		Open: p.open, Out: p, QR: c.req.QR, Progress: c.progress,
		Warn: func(text string) { _, _ = p.Write([]byte("zt: " + fault.Escape(text) + "\n")) },
	})
	if err != nil {
		f := *fault.Of(err)
		if f.Reason == wire.ReasonDeviceRefused {
			f.Hints = []string{"ask the gateway's administrator"} // enrolling is what was refused: it is no way out
		}
		return nil, &f
	}
	return state, nil
}

func (a *Agent) repin(ctx context.Context, c *conversation) (any, error) {
	in, err := args[RepinArgs](c)
	if err != nil {
		return nil, err
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	var res RepinResult
	res.Old, res.New, err = r.Repin(ctx, in.Cluster, in.Accept)
	return res, err
}
