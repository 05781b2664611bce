package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
)

const (
	// helloLimit is for a client to say what it wants, writeLimit for it to take
	// one frame: a stopped one must not hold the agent.
	helloLimit = 5 * time.Second
	writeLimit = 5 * time.Second
	// breath is how often a client that waits hears of us.
	breath = 5 * time.Second
	// openLimit is for the person's machine to show a browser.
	openLimit = 20 * time.Second
	// cleanLimit is for kubeconfig files, which somebody else may have locked.
	cleanLimit = 30 * time.Second
)

// conversation is one client's connection.
type conversation struct {
	conn   net.Conn
	req    Request
	opened chan string // answers to frameOpen

	cleaned chan []string // answer to frameClean

	mu   sync.Mutex // writes
	gone bool       // a write has failed; guarded by mu
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
		switch kind {
		case frameOpened:
			select {
			case c.opened <- string(payload):
			default:
			}
		case frameCleaned:
			var files []string
			if json.Unmarshal(payload, &files) != nil {
				continue
			}
			select {
			case c.cleaned <- files:
			default:
			}
		}
	}
}

// send writes one frame. A client that does not take it in time is gone for us:
// the connection is closed, which ends its request, and nothing waits for it again.
func (c *conversation) send(kind byte, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	err := c.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	if err == nil {
		err = writeFrame(c.conn, kind, payload)
	}
	if err != nil {
		c.gone = true
		c.conn.Close()
	}
}

// breathe tells the client now and then that the agent is alive, until stop: what
// it waits for, a person at a page, may take minutes.
func (c *conversation) breathe() (stop func()) {
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(breath)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				c.send(frameAlive, nil)
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
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

// clean has the client take a profile's contexts out of files. It returns those
// that are done, and whether the client has answered at all.
func (c *conversation) clean(ctx context.Context, n profile.Name, files []string) (done []string, answered bool) {
	if len(files) == 0 {
		return nil, true
	}
	data, err := json.Marshal(Cleaning{n, files})
	if err != nil {
		return nil, false
	}
	c.send(frameClean, data)
	timer := time.NewTimer(cleanLimit)
	defer timer.Stop()
	select {
	case done = <-c.cleaned:
		return done, true
	case <-ctx.Done():
	case <-timer.C:
	}
	return nil, false
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
