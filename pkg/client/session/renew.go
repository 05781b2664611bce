package session

import (
	"context"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/client/tunnel"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// renewLimit is for one renewal with everything that belongs to it.
	renewLimit = 30 * time.Second
	// prefaceLimit is for one target to take the renewed certificate.
	prefaceLimit = 5 * time.Second
	// look is how often the wall clock is consulted: timers stand still while the
	// machine sleeps.
	look = 5 * time.Second
	// firstRetry and lastRetry bound the pause after a renewal that failed.
	firstRetry = 5 * time.Second
	lastRetry  = time.Minute
)

// keepRenewed renews at half life, with the certificate's other half left for
// whatever goes wrong, until ctx ends.
func (s *Session) keepRenewed(ctx context.Context, l *live) {
	retry := firstRetry
	var notBefore time.Time // of the next attempt, gateway's clock
	for {
		id := l.identity.Load()
		due := id.halfLife()
		if !l.accepted() {
			due = notBefore
		}
		if due.Before(notBefore) {
			due = notBefore
		}
		wait := min(due.Sub(s.clock.Now()), look)
		if wait > 0 && !sleepUnless(ctx, wait, l.hurry) || ctx.Err() != nil {
			return
		}
		if now := s.clock.Now(); !id.issued.SessionEnd.IsZero() && now.After(id.issued.SessionEnd) {
			s.end(l, fault.New(fault.ExitLogin, "kubectl zt login", "the session has reached its maximum length").Because(wire.ReasonSessionEnded))
			return
		} else if now.Before(due) {
			continue
		}
		if err := s.renew(ctx, l); err != nil {
			s.deps.Log.Info("certificate not renewed", "error", fault.Of(err).What, "retry", retry.String())
			// Jitter: a thousand laptops whose issuer comes back do not call at once.
			notBefore = s.clock.Now().Add(retry/2 + rand.N(retry))
			retry = min(2*retry, lastRetry)
			continue
		}
		notBefore, retry = time.Time{}, firstRetry
	}
}

func sleep(ctx context.Context, d time.Duration) bool { return sleepUnless(ctx, d, nil) }

// sleepUnless may be cut short by woken; false means that ctx has ended.
func sleepUnless(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-woken:
	}
	return true
}

// renew gets a certificate for the same key and session. Whoever needs it joins
// the one renewal under way.
func (s *Session) renew(ctx context.Context, l *live) error {
	before := l.identity.Load()
	_, err := s.flight(ctx, "renew "+string(before.who.Session), renewLimit, func(ctx context.Context) (any, error) {
		if l.identity.Load() != before { // renewed while we came
			return nil, nil
		}
		return nil, s.renewOnce(ctx, l, before)
	})
	return err
}

func (s *Session) renewOnce(ctx context.Context, l *live, id *identity) error {
	p := s.profile.Load()
	valid := s.presentable(l)
	person, err := l.idp.refresh(ctx, s.loginConfig(p), s.deps.Now)
	if errors.Is(err, login.ErrReloginNeeded) {
		why := fault.New(fault.ExitLogin, "kubectl zt login", "your identity provider wants a new login").Because(wire.ReasonLoginRequired)
		if !valid {
			s.end(l, why)
		}
		return why
	}
	if err != nil {
		return err
	}
	csr, err := s.key.CSR()
	if err != nil {
		return err
	}
	req := wire.RenewRequest{CSR: csr, IDToken: person.idToken.Reveal(), AccessToken: person.accessToken.Reveal()}
	var issued wire.Certificate
	if valid {
		err = l.control.call(ctx, http.MethodPost, wire.PathCertificate, req, &issued)
	} else {
		err = s.renewExpired(ctx, id, req, &issued)
		if stillGood(err) {
			// By the gateway's clock, which is the one that counts.
			valid = true
			err = l.control.call(ctx, http.MethodPost, wire.PathCertificate, req, &issued)
		}
	}
	switch why, over := ended(err); {
	case over && why.Reason == wire.ReasonLoginRequired && valid:
		// The issuer vouches for nobody without a new login: the session lasts as
		// long as its certificate, and asking again would not change that.
		l.idp.exhaust()
	case over:
		s.end(l, why)
	}
	if err != nil {
		return err
	}
	next, err := newIdentity(p, s.key, id.proof, issued)
	if err != nil {
		return err
	}
	if next.who.Session != id.who.Session || !next.who.User.Same(id.who.User) {
		return fault.New(fault.ExitUntrusted, "kubectl zt login", "the gateway renewed another session than ours")
	}
	l.identity.Store(next)
	s.deps.Log.Info("certificate renewed", "until", next.who.NotAfter.UTC().Format(time.RFC3339))
	s.spread(ctx, l, next)
	return nil
}

// renewExpired goes to gw., where no certificate is asked for: the device key
// proves itself anew.
func (s *Session) renewExpired(ctx context.Context, id *identity, req wire.RenewRequest, issued *wire.Certificate) error {
	check, err := s.deviceCheck(ctx, wire.PurposeRenew, id.proof)
	if err != nil {
		return err
	}
	req.TXN = check.TXN
	req.Certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.chain[0].Raw}))
	return s.call(ctx, http.MethodPost, wire.PathSessionRenew, req, issued)
}

// stillGood reports whether gw. has refused to renew a live certificate.
func stillGood(err error) bool {
	var r *wire.Refusal
	return errors.As(err, &r) && r.Reason == wire.ReasonMethod && r.Status() == http.StatusConflict
}

// spread shows the new certificate to everybody who holds a stream of this
// session: the edge, control, and each cluster in use. Otherwise they would end
// the streams with the old one.
func (s *Session) spread(ctx context.Context, l *live, id *identity) {
	p := s.profile.Load()
	l.outer.Renew(ctx, id.issued.Chain)
	targets := map[string]string{controlTarget: p.TrustDomain}
	if s.deps.InUse != nil {
		for host := range s.deps.InUse(p.Name) {
			if pin, ok := p.Clusters[clusterOf(host, p.Domain)]; ok {
				targets[host+":443"] = string(pin.UID)
			}
		}
	}
	var all sync.WaitGroup
	for authority, audience := range targets {
		all.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					s.deps.Log.Error("panic", "in", "renewal of "+authority, "value", fault.Panic(v))
				}
			}()
			// Twice: the first may have met a connection that was dead, and a stream
			// whose peer was not renewed ends with the old certificate.
			err := s.renewPreface(ctx, l, authority, audience)
			if err != nil && ctx.Err() == nil {
				err = s.renewPreface(ctx, l, authority, audience)
			}
			if err != nil {
				s.deps.Log.Info("renewal not taken", "target", authority, "error", fault.Escape(err.Error()))
			}
		})
	}
	all.Wait()
}

func (s *Session) renewPreface(ctx context.Context, l *live, authority, audience string) error {
	ctx, cancel := context.WithTimeout(ctx, prefaceLimit)
	defer cancel()
	stream, err := l.outer.Connect(ctx, authority)
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := tunnel.WriteRenewal(net.Conn(stream), audience, s.proofOf(l)); err != nil {
		return err
	}
	if err := stream.CloseWrite(); err != nil {
		return err
	}
	_, err = stream.Response(ctx)
	return err
}
