package stream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// spliceBuffer is held twice for each stream while it lives.
	spliceBuffer = 32 << 10
	// frameTime is how long a cut waits for the end of a frame that is on its
	// way to the client, so that it can be told why.
	frameTime = 250 * time.Millisecond
	// lingerTime is how long the client has to read that.
	lingerTime = time.Second
	// halfTime is how long a stream lives on after one side has ended.
	halfTime = 30 * time.Second
)

// Result is what went through a stream.
type Result struct {
	In, Out int64 // bytes from and to the client
	// Cut is why the gateway ended it, nil when it ended by itself.
	Cut *wire.Refusal
}

// Run takes the client's connection over and moves bytes until one side ends or
// ctx does. When ctx ends with a *wire.Refusal as its cause, nothing more goes
// upstream from that moment on, and the client is told the reason. Both
// connections are closed when Run returns.
func (s *Session) Run(ctx context.Context, w http.ResponseWriter, auditID wire.DecisionID) (Result, error) {
	defer s.upstream.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return Result{}, err
	}
	defer client.Close()
	if err := client.SetDeadline(time.Time{}); err != nil {
		return Result{}, err
	}
	if err := s.writeSwitch(client, auditID); err != nil {
		return Result{}, err
	}
	sp := &splice{session: s, client: client, frames: frames{webSocket: s.upgrade.Protocol == WebSocket}}
	return sp.run(ctx, buffered.Reader), nil
}

type splice struct {
	session *Session
	client  net.Conn
	frames  frames // of what goes to the client; used by toClient alone

	// cut is looked at under gate, which is held while bytes go upstream: who
	// has set the one and then got the other knows that none follow.
	gate sync.Mutex
	cut  atomic.Pointer[wire.Refusal]

	in, out atomic.Int64
	deaf    bool        // upstream takes nothing any more; toUpstream's
	halfway *time.Timer // belongs to toUpstream, and to run after it
}

func (sp *splice) run(ctx context.Context, early *bufio.Reader) Result {
	stop := context.AfterFunc(ctx, func() { sp.end(context.Cause(ctx)) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		sp.toUpstream(early)
	}()
	sp.toClient()
	// What was written last must not be lost in a reset connection, which is
	// what closing one with unread bytes in it means: the client's own end is
	// waited for, for a moment.
	if half, ok := sp.client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = sp.client.SetReadDeadline(time.Now().Add(lingerTime))
	sp.session.upstream.Close()
	<-done
	sp.client.Close()
	if sp.halfway != nil {
		sp.halfway.Stop()
	}
	stop()
	return Result{In: sp.in.Load(), Out: sp.out.Load(), Cut: sp.cut.Load()}
}

// end is called once, when the context of the stream has ended.
func (sp *splice) end(cause error) {
	var refusal *wire.Refusal
	if !errors.As(cause, &refusal) {
		refusal = wire.Refuse(wire.ReasonShuttingDown, "", "the stream was ended")
	}
	sp.cut.Store(refusal)
	if !sp.gate.TryLock() {
		// Bytes are on their way upstream this moment, and may be stuck there.
		sp.session.upstream.Close()
	} else {
		sp.gate.Unlock()
	}
	// A client that does not read must not hold the farewell up, and what
	// upstream still owes of a frame it may send for a moment.
	_ = sp.client.SetWriteDeadline(time.Now().Add(lingerTime))
	time.AfterFunc(frameTime, func() { sp.session.upstream.Close() })
}

// toUpstream moves the client's bytes until it ends. What cannot go upstream any
// more, after a cut or because upstream has ended, is read and dropped.
func (sp *splice) toUpstream(early *bufio.Reader) {
	buffer := make([]byte, spliceBuffer)
	var source io.Reader = sp.client
	if n := early.Buffered(); n > 0 {
		source = io.MultiReader(io.LimitReader(early, int64(n)), sp.client)
	}
	for {
		n, err := source.Read(buffer)
		if n > 0 {
			sp.forward(buffer[:n])
		}
		if err != nil {
			sp.clientEnded(err)
			return
		}
	}
}

// forward sends b upstream, unless the stream was cut.
func (sp *splice) forward(b []byte) {
	sp.gate.Lock()
	defer sp.gate.Unlock()
	if sp.cut.Load() != nil || sp.deaf {
		return
	}
	n, err := sp.session.upstream.Write(b)
	sp.in.Add(int64(n))
	if err != nil {
		// Upstream has ended while the client talked on. Its last words, an exit
		// code perhaps, may still be on their way to the client.
		sp.deaf = true
		sp.endIn(lingerTime)
	}
}

// endIn closes upstream, which ends toClient, after a while.
func (sp *splice) endIn(d time.Duration) {
	if sp.halfway != nil {
		sp.halfway.Stop()
	}
	sp.halfway = time.AfterFunc(d, func() { sp.session.upstream.Close() })
}

// clientEnded passes a proper end on and lets upstream finish; anything else
// ends the stream.
func (sp *splice) clientEnded(err error) {
	half, ok := sp.session.upstream.(interface{ CloseWrite() error })
	if !errors.Is(err, io.EOF) || !ok || half.CloseWrite() != nil {
		sp.session.upstream.Close()
		return
	}
	sp.endIn(halfTime)
}

// toClient moves upstream's bytes until it ends or the stream is cut, and then
// says farewell if a frame of ours has a place there.
func (sp *splice) toClient() {
	buffer := make([]byte, spliceBuffer)
	for {
		n, err := sp.session.upstream.Read(buffer)
		if n > 0 && !sp.deliver(buffer[:n]) {
			return
		}
		refusal := sp.cut.Load()
		if refusal != nil && (err != nil || sp.frames.boundary()) {
			sp.farewell(refusal)
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver writes b to the client; after a cut only to the end of a frame that
// had begun. It reports whether the client is still there.
func (sp *splice) deliver(b []byte) bool {
	if sp.cut.Load() != nil && sp.frames.boundary() {
		return true
	}
	rest := b
	for len(rest) > 0 {
		n := sp.frames.next(rest)
		rest = rest[n:]
		if sp.cut.Load() != nil && sp.frames.boundary() {
			break
		}
	}
	b = b[:len(b)-len(rest)]
	n, err := sp.client.Write(b)
	sp.out.Add(int64(n))
	return err == nil
}

func (sp *splice) farewell(refusal *wire.Refusal) {
	if sp.frames.boundary() {
		_, _ = sp.client.Write(sp.session.farewell(refusal))
	}
}
