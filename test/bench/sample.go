package main

import (
	"math"
	"slices"
	"time"
)

// samples are the values of all rounds, by way and metric. Round i of one way
// belongs to round i of any other: they ran next to each other.
type samples map[string]map[string][]float64

func (s samples) add(way, metric string, value float64) {
	if s[way] == nil {
		s[way] = make(map[string][]float64)
	}
	s[way][metric] = append(s[way][metric], value)
}

// median is NaN when there is none.
func (s samples) median(way, metric string) float64 { return median(s[way][metric]) }

// ratio is the median of the quotients of each round, so that what slows the
// machine down for a while slows both sides.
func (s samples) ratio(way, to, metric string) float64 {
	a, b := s[way][metric], s[to][metric]
	var quotients []float64
	for i := range min(len(a), len(b)) {
		quotients = append(quotients, a[i]/b[i])
	}
	return median(quotients)
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile interpolates between the two nearest values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }
