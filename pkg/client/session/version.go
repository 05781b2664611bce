package session

import (
	"slices"
	"strconv"
	"strings"
)

// numbers reads v1.2.3 with anything after a '-' or '+' left out. A pre-release
// counts as its release: it was built to be tried against it. v0.0.0 was never
// released; it is what a build from the source calls itself, whatever its age.
func numbers(v string) ([]int, bool) {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "+")
	v, _, _ = strings.Cut(v, "-")
	parts := strings.Split(v, ".")
	if len(parts) != 3 {
		return nil, false
	}
	out := make([]int, 0, 3)
	for _, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return nil, false
		}
		out = append(out, n)
	}
	return out, slices.Max(out) > 0
}

// Newer reports whether version a is a later one than b; versions without
// numbers are never newer or older than anything.
func Newer(a, b string) bool {
	x, ok1 := numbers(a)
	y, ok2 := numbers(b)
	return ok1 && ok2 && slices.Compare(x, y) > 0
}
