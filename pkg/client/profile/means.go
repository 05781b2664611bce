package profile

import "slices"

// Means reports whether a command without --profile means n: then no hint need
// name it. It does, too, where n is no profile, for nothing can be done with that.
func (h Home) Means(n Name) bool {
	names, err := h.List()
	if err != nil || !slices.Contains(names, n) {
		return true
	}
	cur, err := h.Current()
	if err == nil && slices.Contains(names, cur) {
		return cur == n
	}
	return len(names) == 1
}
