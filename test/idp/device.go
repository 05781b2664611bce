package idp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// deviceGrant is one device authorisation (RFC 8628).
type deviceGrant struct {
	client   string
	userCode string
	scopes   []string
	expires  time.Time
	interval time.Duration
	polled   time.Time // last poll, zero before the first

	subject  string
	amr      []string
	authTime time.Time
	done     bool
	denied   bool
	spent    bool
}

// StoreDeviceAuthorization opens a grant.
func (s *storage) StoreDeviceAuthorization(_ context.Context, client, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.userCode == userCode {
			return op.ErrDuplicateUserCode
		}
	}
	s.devices[deviceCode] = &deviceGrant{
		client: client, userCode: userCode, scopes: slices.Clone(scopes), expires: expires,
	}
	return nil
}

// GetDeviceAuthorizatonState is the library's misspelt question on every poll.
// A grant is good for one set of tokens.
func (s *storage) GetDeviceAuthorizatonState(_ context.Context, client, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[deviceCode]
	if !ok || d.client != client {
		return nil, errors.New("unknown device code")
	}
	if d.spent {
		return nil, errors.New("device code was redeemed before")
	}
	d.spent = d.done && !d.denied
	return &op.DeviceAuthorizationState{
		ClientID: d.client,
		Scopes:   slices.Clone(d.scopes),
		Expires:  d.expires,
		Done:     d.done,
		Denied:   d.denied,
		Subject:  d.subject,
		AMR:      slices.Clone(d.amr),
		AuthTime: d.authTime,
	}, nil
}

// pace answers slow_down to a client that polls faster than it was told, and
// stretches its interval by five seconds (RFC 8628 section 3.5), which the
// library leaves to its user. With force the poll is too fast whatever the time.
func (s *storage) pace(deviceCode string, first time.Duration, now time.Time, force bool) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices[deviceCode]
	if !ok {
		return nil
	}
	if d.interval == 0 {
		d.interval = first
	}
	early := !d.polled.IsZero() && now.Sub(d.polled) < d.interval-tolerance
	d.polled = now
	if !early && !force {
		return nil
	}
	d.interval += 5 * time.Second
	return oidc.ErrSlowDown()
}

// tolerance is what a poll may arrive early, for the jitter of the way here.
const tolerance = 200 * time.Millisecond

// pendingDevice finds the grant behind a code as a person types it.
func (s *storage) pendingDevice(userCode string, now time.Time) (deviceGrant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deviceByUserCode(userCode)
	if d == nil || d.done || d.denied || now.After(d.expires) {
		return deviceGrant{}, false
	}
	return *d, true
}

// decide closes a grant with the person's answer.
func (s *storage) decide(userCode, subject string, amr []string, allow bool, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deviceByUserCode(userCode)
	if d == nil || d.done || d.denied || now.After(d.expires) {
		return errors.New("this code is unknown, used or expired")
	}
	d.subject, d.amr, d.authTime = subject, slices.Clone(amr), now
	d.done, d.denied = allow, !allow
	return nil
}

// deviceByUserCode forgives case and missing dashes. The caller holds mu.
func (s *storage) deviceByUserCode(userCode string) *deviceGrant {
	want := plainCode(userCode)
	for _, d := range s.devices {
		if want != "" && plainCode(d.userCode) == want {
			return d
		}
	}
	return nil
}

func plainCode(c string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(c))
}
