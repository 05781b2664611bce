// Package spelling finds the known word that somebody probably meant.
package spelling

import "strings"

// Nearest is the word of known that is closest to word, compared without case,
// or "" if none is close enough to be worth saying. Of equals the first wins.
func Nearest(word string, known []string) string {
	best, distance := "", allowed(len(word))+1
	lower := strings.ToLower(word)
	for _, k := range known {
		if abs(len(k)-len(word)) >= distance {
			continue
		}
		if d := edits([]byte(lower), []byte(strings.ToLower(k))); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// allowed is how many edits still look like a slip: every third letter or so.
func allowed(length int) int {
	switch {
	case length < 5:
		return 1
	case length < 8:
		return 2
	default:
		return length / 3
	}
}

// edits is the optimal string alignment distance: insert, delete, replace, or
// swap two neighbours. Words longer than any name of ours cost nothing.
func edits(a, b []byte) int {
	const longest = 253
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
