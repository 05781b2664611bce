package idp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// devtools is the little of Chromium's DevTools protocol that a login needs:
// commands with answers, over one websocket. Events are dropped.
type devtools struct {
	conn *websocket.Conn
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex // also serialises writes
	next    int
	waiting map[int]chan answer
	broken  error
}

type command struct {
	ID        int    `json:"id"`
	SessionID string `json:"sessionId,omitempty"`
	Method    string `json:"method"`
	Params    any    `json:"params,omitempty"`
}

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func dialDevtools(ctx context.Context, url string) (*devtools, error) {
	conn, resp, err := (&websocket.Dialer{HandshakeTimeout: 10 * time.Second}).DialContext(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("dial devtools: %w", err)
	}
	_ = resp.Body.Close()
	conn.SetReadLimit(16 << 20)
	d := &devtools{conn: conn, done: make(chan struct{}), waiting: map[int]chan answer{}}
	go d.read()
	return d, nil
}

func (d *devtools) read() {
	defer close(d.done)
	for {
		var a answer
		if err := d.conn.ReadJSON(&a); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.broken = err
			for id, c := range d.waiting {
				close(c)
				delete(d.waiting, id)
			}
			return
		}
		d.mu.Lock()
		if c, ok := d.waiting[a.ID]; ok {
			c <- a
			delete(d.waiting, a.ID)
		}
		d.mu.Unlock()
	}
}

// call sends one command and waits for its answer; result may be nil.
func (d *devtools) call(ctx context.Context, session, method string, params, result any) error {
	c, err := d.send(session, method, params)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a, ok := <-c:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser is gone", method)
		case a.Error != nil:
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

func (d *devtools) send(session, method string, params any) (<-chan answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, errors.New("the browser is gone")
	}
	d.next++
	c := make(chan answer, 1)
	d.waiting[d.next] = c
	_ = d.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	return c, d.conn.WriteJSON(command{ID: d.next, SessionID: session, Method: method, Params: params})
}

func (d *devtools) close() {
	_ = d.conn.Close()
	<-d.done
}
