package session

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/execcred"
	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// early is how long before its end a token counts as expired toward kubectl:
	// the request that carries it has a way to go (DESIGN §2).
	early = 30 * time.Second
	// least is what must be left of a cached token for it to be handed out.
	least     = 10 * time.Second
	mintLimit = 15 * time.Second
)

// tokens caches one access token per cluster.
type tokens struct {
	mu sync.Mutex
	m  map[wire.ClusterName]token
}

// token has its times in this machine's clock.
type token struct {
	value           login.Secret
	minted, expires time.Time
}

func newTokens() *tokens { return &tokens{m: map[wire.ClusterName]token{}} }

func (c *tokens) get(n wire.ClusterName) (token, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.m[n]
	return t, ok
}

func (c *tokens) put(n wire.ClusterName, t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[n] = t
}

func (c *tokens) drop(n wire.ClusterName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, n)
}

func (c *tokens) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.m)
}

// Token returns an access token for cluster n and when kubectl should ask again.
// It is answered from memory while the token lasts; past its half life the next
// one is fetched behind the caller's back.
func (s *Session) Token(ctx context.Context, n wire.ClusterName) (login.Secret, time.Time, error) {
	l, err := s.ready(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	if c, found, known := l.catalogue.get(n); known {
		if err := pinned(s.profile.Load(), c); found && err != nil {
			return "", time.Time{}, err
		}
		if !found || c.Access == "Disabled" {
			l.tokens.drop(n) // control says why, with a decision that can be looked up
		}
	}
	now := s.deps.Now()
	t, ok := l.tokens.get(n)
	if ok && t.expires.Add(-early-least).After(now) {
		if now.After(t.minted.Add(t.expires.Sub(t.minted) / 2)) {
			go func() { _, _ = s.mint(context.WithoutCancel(ctx), l, n) }() // ends with its flight
		}
		return t.value, t.expires.Add(-early), nil
	}
	t, err = s.mint(ctx, l, n)
	return t.value, t.expires.Add(-early), err
}

// mint asks control for a token; callers for one cluster share the question.
func (s *Session) mint(ctx context.Context, l *live, n wire.ClusterName) (token, error) {
	v, err := s.flight(ctx, "token "+string(l.identity.Load().who.Session)+" "+string(n), mintLimit, func(ctx context.Context) (any, error) {
		var got wire.Token
		sent := s.deps.Now()
		ask := func() error {
			return l.control.call(ctx, http.MethodPost, wire.PathToken, wire.TokenRequest{Cluster: n}, &got)
		}
		err := ask()
		var broken *brokenError
		switch {
		case errors.As(err, &broken) && ctx.Err() == nil:
			err = ask() // the network changed; a token that was lost on the way harms nobody
		case err != nil && !l.accepted():
			if _, err = s.ready(ctx); err == nil {
				err = ask()
			}
		}
		if why, over := ended(err); over {
			s.end(l, why)
		}
		if err != nil {
			l.tokens.drop(n)
			return nil, err
		}
		t := token{value: login.Secret(got.Token), minted: sent, expires: s.clock.here(got.Expires)}
		if t.value == "" || !t.expires.After(sent) {
			return nil, fault.New(fault.ExitFailed, "check the clock of this computer", "the gateway gave a token that has expired already")
		}
		l.tokens.put(n, t)
		return t, nil
	})
	if err != nil {
		return token{}, err
	}
	return v.(token), nil
}

// Expected is what a caller of the exec credential must be calling. The first
// push of the catalogue is waited for where the cluster was never seen.
func (s *Session) Expected(ctx context.Context, n wire.ClusterName, ports []int) (execcred.Expected, error) {
	p := s.profile.Load()
	if _, seen := p.Clusters[n]; !seen {
		l, err := s.ready(ctx)
		if err != nil {
			return execcred.Expected{}, err
		}
		if err := l.catalogue.wait(ctx); err != nil {
			return execcred.Expected{}, err
		}
		if p = s.profile.Load(); p.Clusters[n].CA == "" {
			return execcred.Expected{}, unknownCluster(n)
		}
	}
	return execcred.Expected{Profile: string(p.Name), Host: p.Host(n), CA: p.Clusters[n].CA, Ports: ports}, nil
}
