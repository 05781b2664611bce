package agent

import (
	"context"
	"errors"

	"github.com/kube-zt/zt/pkg/client/execcred"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/session"
	"github.com/kube-zt/zt/pkg/wire"
)

// credential answers kubectl: the document for its stdout, or a Fault whose text
// the same kubectl hears once.
func (a *Agent) credential(ctx context.Context, c *conversation) (any, error) {
	doc, err := a.mint(ctx, c)
	if err != nil {
		return nil, a.told.mark(processKey(c.req.Parent), fault.Of(err))
	}
	return doc, nil
}

func (a *Agent) mint(ctx context.Context, c *conversation) ([]byte, error) {
	in, err := args[CredentialArgs](c)
	if err != nil {
		return nil, err
	}
	info, err := execcred.Parse(in.ExecInfo)
	if err != nil {
		return nil, err
	}
	if info.Present {
		c.req.Attended = info.Interactive
	}
	if c.req.Profile == "" {
		return nil, fault.New(fault.ExitUsage, "kubectl zt kubeconfig", "credential needs --profile and --cluster")
	}
	r, err := a.session(c.req.Profile)
	if err != nil {
		return nil, err
	}
	// A kubeconfig that points elsewhere is refused before anybody is bothered
	// with a login (V016); a cluster that was never seen is looked at after it.
	if _, seen := r.Profile().Clusters[in.Cluster]; seen {
		if err := a.check(ctx, r, info, in.Cluster); err != nil {
			return nil, err
		}
	}
	if err := a.ensure(ctx, r, c, false); err != nil {
		return nil, err
	}
	if err := a.check(ctx, r, info, in.Cluster); err != nil {
		return nil, err
	}
	token, expires, err := r.Token(ctx, in.Cluster)
	if f := fault.Of(err); f != nil && f.Exit == fault.ExitLogin && c.req.Attended {
		// The session turned out to be over when it was used.
		if err := a.automatic(ctx, r, c, f); err != nil {
			return nil, err
		}
		token, expires, err = r.Token(ctx, in.Cluster)
	}
	if err != nil {
		return nil, err
	}
	return execcred.Render(token.Reveal(), expires)
}

func (a *Agent) check(ctx context.Context, r *resident, info execcred.Info, n wire.ClusterName) error {
	expected, err := r.Expected(ctx, n, a.ports.numbers(ctx))
	if err != nil {
		return err
	}
	return info.Check(expected)
}

// ensure returns when there is a session that can be used: there was one, or the
// person has logged in. A command that he gave by name may always ask him; one
// that kubectl runs asks within the budget, and never when nobody is there.
func (a *Agent) ensure(ctx context.Context, r *resident, c *conversation, byName bool) error {
	err := r.Ready(ctx)
	f := fault.Of(err)
	if f == nil {
		return nil
	}
	if f.Exit != fault.ExitLogin || !c.req.Attended {
		return f
	}
	if !byName {
		return a.automatic(ctx, r, c, f)
	}
	a.budget.restore(string(r.Profile().OIDC.Issuer))
	return a.logins.join(ctx, r.Session, c, c.deviceCode(r), nil)
}

// automatic logs in on kubectl's behalf, or joins who does already.
func (a *Agent) automatic(ctx context.Context, r *resident, c *conversation, why *fault.Fault) error {
	issuer := string(r.Profile().OIDC.Issuer)
	err := a.logins.join(ctx, r.Session, c, c.deviceCode(r), &terms{
		allow: func() error {
			switch {
			case r.Valid():
				return errQuicker
			case !c.req.Display && c.deviceCode(r) == session.DeviceCodeNever:
				return why // nobody could follow us to a page
			}
			if no := a.budget.take(issuer, processKey(c.req.Parent)); no != nil {
				return no
			}
			return nil
		},
		ended: func(err error) { a.budget.spend(issuer, err) },
	})
	if errors.Is(err, errQuicker) {
		return nil
	}
	return err
}

// errQuicker says that somebody else has logged in meanwhile.
var errQuicker = errors.New("there is a session already")

// deviceCode offers the device authorisation grant by itself where no browser
// can be shown.
func (c *conversation) deviceCode(r *resident) session.DeviceCode {
	if !c.req.Display && r.Profile().OIDC.DeviceCode {
		return session.DeviceCodeIfAllowed
	}
	return session.DeviceCodeNever
}
