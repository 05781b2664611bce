package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// heapFloor is how far the heap may grow, in bytes, however little of it is
	// alive. A gateway has few megabytes alive and makes many a second; collected
	// whenever they double, it would spend a tenth of its time on that.
	heapFloor = 12 << 20
	// usualPercent is Go's own GOGC, which holds for a heap that is larger.
	usualPercent = 100
)

// paceCollector lets the heap grow to heapFloor before garbage is collected, and
// leaves a larger heap to Go's own pace. GOGC in the environment overrules it.
func paceCollector(environment func(string) string) {
	if environment("GOGC") != "" {
		return
	}
	pace(new(canary))
}

// canary is what a cycle of the collector finds dead: its finalizer runs once after
// each, and makes it live for another.
type canary struct{ _ [16]byte }

func pace(c *canary) {
	sizes := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(sizes)
	debug.SetGCPercent(percentFor(sizes[0].Value.Uint64(), sizes[1].Value.Uint64()+sizes[2].Value.Uint64()))
	runtime.SetFinalizer(c, pace)
}

// percentFor is the GOGC at which a heap with that many live bytes is collected when
// it comes to heapFloor, or the usual one. Go counts roots, which are stacks and
// globals, when it takes the percentage (see the GC guide).
func percentFor(live, roots uint64) int {
	if live == 0 || live >= heapFloor {
		return usualPercent
	}
	percent := float64(heapFloor-live) / float64(live+roots) * 100
	return int(min(max(percent, usualPercent), 1000))
}
