package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		live, roots uint64
		want        int
	}{
		{live: 0, want: 100},                       // before the first cycle
		{live: 1 << 20, want: 1000},                // bounded
		{live: 3 << 20, want: 300},                 // 3 alive of 12
		{live: 3 << 20, roots: 3 << 20, want: 150}, // the percentage is of both
		{live: 6 << 20, want: 100},                 // just Go's own pace
		{live: 8 << 20, roots: 8 << 20, want: 100}, // many stacks
		{live: 12 << 20, want: 100},                // larger than the floor
		{live: 1 << 40, want: 100},
	} {
		if got := percentFor(tc.live, tc.roots); got != tc.want {
			t.Errorf("%d bytes alive, %d of roots: %d, want %d", tc.live, tc.roots, got, tc.want)
		}
	}
}

// TestPaceCollector: the pace is set again after each cycle, and not where the
// environment has one of its own.
func TestPaceCollector(t *testing.T) {
	usual := debug.SetGCPercent(usualPercent)
	defer debug.SetGCPercent(usual)
	paceCollector(func(string) string { return "50" })
	if got := debug.SetGCPercent(usualPercent); got != usualPercent {
		t.Fatalf("the environment's pace was overruled by %d", got)
	}
	paceCollector(func(string) string { return "" })
	for deadline := time.Now().Add(10 * time.Second); ; {
		debug.SetGCPercent(usualPercent)
		runtime.GC()
		time.Sleep(time.Millisecond) // finalizers have a goroutine of their own
		if got := debug.SetGCPercent(usualPercent); got > usualPercent {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing sets the pace after a cycle")
		}
	}
}
