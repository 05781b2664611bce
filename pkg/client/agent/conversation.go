package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
)

const (
	// helloLimit is for a client to say what it wants, writeLimit for it to take
	// one frame: a stopped one must not hold the agent.
	helloLimit = 5 * time.Second
	writeLimit = 5 * time.Second
	// openLimit is for the person's machine to show a browser.
	openLimit = 20 * time.Second
)

// conversation is one client's connection.
type conversation struct {
	conn   net.Conn
	req    Request
	opened chan string // answers to frameOpen

	mu sync.Mutex // writes
}

// hear reads what the client sends after its request; it ends ctx by cancel when
// the client has gone.
func (c *conversation) hear(cancel context.CancelCauseFunc) {
	for {
		kind, payload, err := readFrame(c.conn)
		if err != nil {
			cancel(context.Canceled)
			return
		}
		if kind == frameOpened {
			select {
			case c.opened <- string(payload):
			default:
			}
		}
	}
}

// send drops what a client does not take; its reads tell when it has gone.
func (c *conversation) send(kind byte, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn.SetWriteDeadline(time.Now().Add(writeLimit)) == nil {
		_ = writeFrame(c.conn, kind, payload)
	}
}

func (c *conversation) progress(text string) { c.send(frameProgress, []byte(fault.Escape(text))) }

func (c *conversation) result(v any) {
	if raw, ok := v.([]byte); ok {
		c.send(frameResult, raw)
		return
	}
	data, err := json.Marshal(v)
	if err != nil {
		c.fail(fault.New(fault.ExitFailed, "", "encode the answer: %v", err))
		return
	}
	c.send(frameResult, data)
}

func (c *conversation) fail(f *fault.Fault) {
	if data, err := json.Marshal(f); err == nil {
		c.send(frameFault, data)
	}
}

// open asks the client to show a URL and waits for how that went.
func (c *conversation) open(ctx context.Context, url string) error {
	c.send(frameOpen, []byte(url))
	timer := time.NewTimer(openLimit)
	defer timer.Stop()
	select {
	case why := <-c.opened:
		if why != "" {
			return errors.New(why)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("the browser did not appear")
	}
}

// args decodes the request's arguments.
func args[T any](c *conversation) (T, error) {
	var a T
	if len(c.req.Args) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(c.req.Args, &a); err != nil {
		return a, fault.New(fault.ExitUsage, "kubectl zt agent --stop", "the request cannot be read: %v", err)
	}
	return a, nil
}
