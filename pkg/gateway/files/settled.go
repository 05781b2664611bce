package files

import (
	"context"
	"errors"
	"time"
)

const (
	// Settle is how long what was touched lately must stay the same.
	Settle = 150 * time.Millisecond
	// lately: what is older than this was not being written a moment ago.
	lately = 2 * time.Second
	// within bounds the wait for what changes all the time.
	within = 5 * time.Second
)

// ErrUnstable: it changed in every moment in which it was looked at.
var ErrUnstable = errors.New("it keeps changing")

// Settled calls look until two looks in succession agree, and returns the second.
// A look returns ErrUnstable when it saw a change itself, and else when what it
// saw was changed last. It gives up with the last look's error or ErrUnstable after
// 5 s, or with ctx.
func Settled[T any](ctx context.Context, look func() (T, time.Time, error), equal func(a, b T) bool) (T, error) {
	var none, last T
	limit := time.Now().Add(within)
	for seen, first := false, true; ; first = false {
		now, touched, err := look()
		if err != nil && !errors.Is(err, ErrUnstable) {
			return none, err
		}
		if err == nil && seen && equal(now, last) {
			return now, nil
		}
		last, seen = now, err == nil
		if err == nil && first && time.Since(touched) > lately {
			continue // nobody was writing: the second look may follow at once
		}
		if time.Now().After(limit) {
			if err == nil {
				err = ErrUnstable
			}
			return none, err
		}
		if err := Sleep(ctx, Settle); err != nil {
			return none, err
		}
	}
}

// Sleep returns after d, or with ctx's error.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
