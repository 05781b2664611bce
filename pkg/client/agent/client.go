package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/client/profile"
)

// Client is a command's side of the conversation. The callbacks may be nil.
type Client struct {
	Home    profile.Home
	Version string
	Binary  string // own path, to spawn the agent
	// Hurried is for kubectl's plugin, which lives for a millisecond: it waits in
	// the system call and does without Go's poller, its threads and its timers. A
	// signal ends it; its context is not looked at while it waits.
	Hurried bool
	// Progress, Notice and Debug take what the agent says meanwhile; Open shows a
	// URL in the person's browser.
	Progress func(string)
	Notice   func([]byte)
	Debug    func([]byte)
	Open     func(ctx context.Context, url string) error
	// Clean takes a profile's contexts out of files, at logout, and returns those
	// that are done.
	Clean func(context.Context, Cleaning) []string
	// Patience is how long the agent may be silent; 0 means 20 s. A stopped one must
	// not hold kubectl for ever.
	Patience time.Duration
	// NoSpawn fails when no agent runs: to ask after one is no reason to start it.
	NoSpawn bool
}

// patience is four breaths of the agent.
const patience = 4 * breath

// ErrNoAgent is returned with NoSpawn.
var ErrNoAgent = errors.New("no agent is running")

// Do sends one request and returns the result's bytes. Errors are Faults, unless
// ctx ended or no agent is wanted. An agent that dies in the middle is replaced
// once: the next one starts from what is on disk.
func (c *Client) Do(ctx context.Context, req Request, args any) ([]byte, error) {
	req.Protocol, req.Version, req.Binary = Protocol, c.Version, c.Binary
	if a, ok := args.(CredentialArgs); ok {
		req.Args = a.encode()
	} else if args != nil {
		data, err := json.Marshal(args)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		req.Args = data
	}
	for attempt := 0; ; attempt++ {
		conn, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		result, err := c.converse(ctx, conn, req)
		conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, errHungUp) && attempt == 0 && req.Op != OpStop {
			continue
		}
		if errors.Is(err, errHungUp) && req.Op == OpStop {
			return nil, nil
		}
		return result, err
	}
}

// Get is Do with the result decoded into out.
func (c *Client) Get(ctx context.Context, req Request, args, out any) error {
	data, err := c.Do(ctx, req, args)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fault.New(fault.ExitFailed, "kubectl zt agent --stop", "the agent's answer cannot be read: %v", err)
	}
	return nil
}

var errHungUp = fault.New(fault.ExitFailed, "try again", "the agent has gone in the middle of the request")

// connect reaches the agent and starts it if there is none.
func (c *Client) connect(ctx context.Context) (io.ReadWriteCloser, error) {
	// Whoever owns the directory owns the socket in it; a foreign one is refused
	// before anything is said.
	conn, err := c.dial()
	if err == nil {
		return conn, nil
	}
	var f *fault.Fault
	if errors.As(err, &f) {
		return nil, err
	}
	if c.NoSpawn {
		return nil, ErrNoAgent
	}
	return c.spawn(ctx)
}

func (c *Client) dial() (io.ReadWriteCloser, error) {
	if err := c.Home.CheckRun(); err != nil {
		return nil, err
	}
	if c.Hurried {
		return dialBlocking(c.Home.Socket(), cmp.Or(c.Patience, patience))
	}
	return net.DialTimeout("unix", c.Home.Socket(), 2*time.Second)
}

// converse sends req and serves the agent's frames until the last one.
func (c *Client) converse(ctx context.Context, conn io.ReadWriteCloser, req Request) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := writeFrame(conn, frameRequest, req.append(nil)); err != nil {
		return nil, errHungUp
	}
	for {
		if conn, ok := conn.(net.Conn); ok {
			if err := conn.SetReadDeadline(time.Now().Add(cmp.Or(c.Patience, patience))); err != nil {
				return nil, errHungUp
			}
		}
		kind, payload, err := readFrame(conn)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, fault.New(fault.ExitUnreachable, "kubectl zt agent --stop", "the agent does not answer")
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err) {
				return nil, errHungUp
			}
			return nil, fault.New(fault.ExitFailed, "kubectl zt agent --stop", "no answer of the agent: %v", err)
		}
		switch kind {
		case frameResult:
			return payload, nil
		case frameFault:
			f := new(fault.Fault)
			if err := json.Unmarshal(payload, f); err != nil {
				return nil, fault.New(fault.ExitFailed, "kubectl zt agent --stop", "the agent's answer cannot be read")
			}
			return nil, f
		case frameProgress:
			if c.Progress != nil {
				c.Progress(string(payload))
			}
		case frameNotice:
			if c.Notice != nil {
				c.Notice(payload)
			}
		case frameDebug:
			if c.Debug != nil {
				c.Debug(payload)
			}
		case frameClean:
			if err := c.clean(ctx, conn, payload); err != nil {
				return nil, errHungUp
			}
		case frameOpen:
			if err := c.open(ctx, conn, string(payload)); err != nil {
				return nil, errHungUp
			}
		}
	}
}

// clean does what the agent cannot be asked to and tells it what was done.
func (c *Client) clean(ctx context.Context, conn io.Writer, payload []byte) error {
	done := []string{}
	var what Cleaning
	if c.Clean != nil && json.Unmarshal(payload, &what) == nil {
		done = append(done, c.Clean(ctx, what)...)
	}
	data, err := json.Marshal(done)
	if err != nil {
		return err
	}
	return writeFrame(conn, frameCleaned, data)
}

// open shows a URL and tells the agent how that went.
func (c *Client) open(ctx context.Context, conn io.Writer, url string) error {
	var why string
	if c.Open == nil {
		why = "there is no browser here"
	} else if err := c.Open(ctx, url); err != nil {
		why = fault.Escape(err.Error())
	}
	return writeFrame(conn, frameOpened, []byte(why))
}
