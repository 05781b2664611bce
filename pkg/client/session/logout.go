package session

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/login"
	"github.com/kube-zt/zt/pkg/wire"
)

// logoutLimit is for each of the two who are told.
const logoutLimit = 8 * time.Second

// Farewell is how a logout went. Locally the session is over in any case.
type Farewell struct {
	WasLoggedIn bool `json:"wasLoggedIn"`
	// Gateway and Issuer are empty when each has ended its part, or say why not.
	Gateway string `json:"gateway,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	// Until is when the certificate ends by itself, if the gateway was not told.
	Until time.Time `json:"until,omitzero"`
}

// Logout ends the session: at the gateway, which cuts its streams everywhere, at
// the issuer, and here.
func (s *Session) Logout(ctx context.Context) Farewell {
	l, _ := s.current()
	if l == nil {
		return Farewell{}
	}
	f := Farewell{WasLoggedIn: true}
	l.leaving.Store(true)
	gctx, cancel := context.WithTimeout(ctx, logoutLimit)
	err := l.control.call(gctx, http.MethodPost, wire.PathLogout, struct{}{}, nil)
	cancel()
	if err != nil {
		if _, over := ended(err); !over {
			f.Gateway = fault.Of(err).What
			f.Until = s.clock.here(l.identity.Load().who.NotAfter)
		}
	}
	ictx, cancel := context.WithTimeout(ctx, logoutLimit)
	err = l.idp.revoke(ictx, s.loginConfig(s.profile.Load()))
	cancel()
	if err != nil && !errors.Is(err, login.ErrUnsupported) {
		f.Issuer = fault.Of(err).What
	} else if err != nil {
		f.Issuer = "it offers no way to revoke a login"
	}
	s.replace(l, nil, nil)
	l.idp.close()
	s.deps.Log.Info("logged out")
	return f
}
