package idp

import (
	"slices"
	"time"
)

// Counters count requests as they arrive, whatever becomes of them, except
// Logins and Reuses.
type Counters struct {
	Discoveries          int
	JWKS                 int
	Authorizations       int // requests to the authorisation endpoint
	Logins               int // people who got through the pages
	Tokens               int // all requests to the token endpoint
	CodeExchanges        int
	Refreshes            int
	DevicePolls          int
	DeviceAuthorizations int
	Userinfos            int
	Revocations          int
	Reuses               int // refresh tokens that came back a second time
}

// Counters is a snapshot.
func (p *Provider) Counters() Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counters
}

// DevicePolls tells when the device grant was polled.
func (p *Provider) DevicePolls() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.polls)
}

func (p *Provider) count(add func(*Counters)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.counters)
}

func (p *Provider) countRequest(e Endpoint, grant string) {
	p.count(func(c *Counters) {
		switch e {
		case Discovery:
			c.Discoveries++
		case JWKS:
			c.JWKS++
		case Authorize:
			c.Authorizations++
		case Userinfo:
			c.Userinfos++
		case Revocation:
			c.Revocations++
		case DeviceAuthorization:
			c.DeviceAuthorizations++
		case Token:
			c.Tokens++
			switch grant {
			case grantCode:
				c.CodeExchanges++
			case grantRefresh:
				c.Refreshes++
			case grantDevice:
				c.DevicePolls++
				p.polls = append(p.polls, time.Now())
			}
		}
	})
}
