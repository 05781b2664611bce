package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/h2conn"
	"github.com/kube-zt/zt/pkg/trust"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// maxAnswer bounds an answer of the gateway: a catalogue of thousands fits.
	maxAnswer = 16 << 20
	// answerLimit is for one request and its answer.
	answerLimit = 15 * time.Second
)

// caller sends JSON to one regime of the gateway and reads JSON or a refusal.
type caller struct {
	client *http.Client
	base   string // https://NAME
	name   string // for messages
	agent  string // User-Agent
	clock  *clock
}

// call does one exchange. in and out may be nil. A refusal of the gateway is
// returned as *wire.Refusal; what failed on the way is a Fault.
func (c *caller) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	sent := c.clock.now()
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.failed(err)
	}
	if len(body) > maxAnswer {
		return fault.New(fault.ExitFailed, "ask the gateway's administrator", "%s sent more than %d bytes", c.name, maxAnswer)
	}
	if resp.StatusCode >= 300 {
		return c.refused(resp, body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fault.New(fault.ExitFailed, "kubectl zt version", "the answer of %s cannot be read: %v", c.name, err)
	}
	c.observe(out, sent)
	return nil
}

// send returns an answer whose body is still to be read; events are read so.
func (c *caller) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", c.agent)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, c.failed(err)
	}
	return resp, nil
}

// refused reads a refusal. Something in between that is not zt has no say.
func (c *caller) refused(resp *http.Response, body []byte) error {
	r := new(wire.Refusal)
	if json.Unmarshal(body, r) == nil && r.Message != "" && r.Reason != "" {
		return r
	}
	return fault.New(fault.ExitUnreachable, "kubectl zt status", "%s answered %s", c.name, resp.Status)
}

func (c *caller) failed(err error) error {
	var f *fault.Fault
	var refused *h2conn.RefusedError
	var unknown *trust.UnknownAuthorityError
	var clock *trust.ClockError
	var u *url.Error
	if errors.As(err, &u) { // its text repeats the URL; ours names the place
		err = u.Err
	}
	err = trust.Explain(err, c.name)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &refused):
		return refused.Refusal
	case errors.As(err, &unknown):
		return err // first contact has more to say about it than anybody else
	case errors.As(err, &clock):
		return fault.New(fault.ExitFailed, "check the clock of this computer", "%v", clock).Because(wire.ReasonClockSkew)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.ExitUnreachable, fault.CheckNetwork, "%s did not answer in time", c.name)
	default:
		return &brokenError{fault.New(fault.ExitUnreachable, fault.CheckNetwork, "%s cannot be reached: %v", c.name, err)}
	}
}

// brokenError is a request whose connection failed under it. Whether it was heard
// is unknown, so only what may happen twice is asked again.
type brokenError struct{ f *fault.Fault }

func (e *brokenError) Error() string { return e.f.Error() }
func (e *brokenError) Unwrap() error { return e.f }

// observe measures the clock by an answer that carries a time.
func (c *caller) observe(out any, sent time.Time) {
	switch v := out.(type) {
	case *wire.Discovery:
		c.clock.observe(v.Time, sent)
	case *wire.DeviceNonce:
		c.clock.observe(v.Time, sent)
	case *wire.DeviceCheck:
		c.clock.observe(v.Time, sent)
	case *wire.Certificate:
		c.clock.observe(v.Time, sent)
	case *wire.Token:
		c.clock.observe(v.Time, sent)
	}
}
