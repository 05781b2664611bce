package session

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/kube-zt/zt/pkg/client/fault"
	"github.com/kube-zt/zt/pkg/wire"
)

const (
	// quiet is how long the stream of events may be silent: control pings every
	// 15 s.
	quiet = 40 * time.Second
	// maxEvent bounds one line, a whole catalogue at worst.
	maxEvent = maxAnswer
	// firstPause and lastPause bound the wait before events are asked for again.
	firstPause = 250 * time.Millisecond
	lastPause  = 30 * time.Second
)

var errQuiet = errors.New("control has fallen silent")

// follow listens to control for as long as ctx lives.
func (s *Session) follow(ctx context.Context, l *live) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := s.listen(ctx, l)
		if why, over := ended(err); over {
			s.end(l, why)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			text := fault.Of(err).What
			l.heard.Store(&text)
			s.deps.Log.Debug("events interrupted", "error", text)
		}
		if time.Since(began) > quiet {
			pause = firstPause
		}
		sleep(ctx, pause/2+rand.N(pause))
		pause = min(2*pause, lastPause)
	}
}

// listen reads one stream of events to its end.
func (s *Session) listen(ctx context.Context, l *live) error {
	if _, err := s.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(quiet, func() { cancel(errQuiet) })
	defer silence.Stop()
	resp, err := l.control.send(ctx, http.MethodGet, wire.PathEvents, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body := make([]byte, 64<<10)
		n, _ := resp.Body.Read(body)
		return l.control.refused(resp, body[:n])
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxEvent)
	for lines.Scan() {
		silence.Reset(quiet)
		var e wire.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fault.New(fault.ExitFailed, "kubectl zt version", "an event of the gateway cannot be read: %v", err)
		}
		l.heard.Store(nil)
		s.event(l, e)
	}
	if cause := context.Cause(ctx); errors.Is(cause, errQuiet) {
		return cause
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("control has ended the stream of events")
}

func (s *Session) event(l *live, e wire.Event) {
	switch e.Kind {
	case wire.EventClusters:
		s.know(l, e.Clusters)
	case wire.EventSession:
		if e.Session == nil || e.Session.Session != l.identity.Load().who.Session {
			return
		}
		if e.Session.Ended {
			why := "the session was ended at the gateway"
			if e.Session.Reason != "" {
				why += ": " + e.Session.Reason
			}
			cause := cmp.Or(e.Session.Cause, wire.ReasonSessionEnded)
			s.end(l, fault.New(fault.ExitLogin, e.Session.Hint, "%s", why).Because(cause))
			return
		}
		// Roles were taken away: tokens in kubectl's hands lose them at the gateway,
		// the next ones are made without.
		l.tokens.clear()
		s.epoch.Add(1)
	}
}

// unheard is why control is not heard of.
func (l *live) unheard() error {
	why := notYet
	if text := l.heard.Load(); text != nil {
		why = *text
	}
	return fault.New(fault.ExitUnreachable, "kubectl zt status", "%s", why)
}
