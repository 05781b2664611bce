package main

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	values := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4, 0.25: 1.75} {
		if got := quantile(values, q); got != want {
			t.Errorf("%v: got %v, want %v", q, got, want)
		}
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("a quantile of nothing")
	}
}

// A ratio is taken within rounds: a machine that is slow in one round does not
// move it.
func TestRatio(t *testing.T) {
	t.Parallel()
	s := samples{}
	for _, slow := range []float64{1, 10, 1} {
		s.add("zt", "ms", 2*slow)
		s.add("floor", "ms", 1*slow)
	}
	if got := s.ratio("zt", "floor", "ms"); got != 2 {
		t.Errorf("got %v, want 2", got)
	}
	if !math.IsNaN(s.ratio("zt", "absent", "ms")) {
		t.Error("a ratio to nothing")
	}
}
