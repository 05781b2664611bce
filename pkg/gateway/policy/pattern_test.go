package policy

import (
	"testing"
)

func TestPattern(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, text string
		want          bool
	}{
		{"prod-*", "prod-1", true},
		{"prod-*", "prod-", true},
		{"prod-*", "prod", false},
		{"prod-*", "xprod-1", false},
		{"*-1", "prod-1", true},
		{"*-1", "prod-11", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"*", "", true},
		{"*", "a/b", true},
		{"**", "x", true},
		{"", "", true},
		{"", "a", false},
		{"a", "A", false},
		{"*ab*ab*", "ab", false},
		{"*ab*ab*", "abab", true},
		{"a.b", "axb", false},
	}
	for _, tt := range tests {
		p := compilePattern(tt.pattern)
		if got := p.match(tt.text); got != tt.want {
			t.Errorf("%q on %q: %v", tt.pattern, tt.text, got)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("a*b*c", "aXbYc")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, glob, text string) {
		if len(glob) > 40 || len(text) > 40 {
			return
		}
		p := compilePattern(glob)
		if got, want := p.match(text), slow(glob, text); got != want {
			t.Errorf("%q on %q: %v, want %v", glob, text, got, want)
		}
	})
}

// slow is the definition of a glob, by dynamic programming.
func slow(glob, text string) bool {
	row := make([]bool, len(text)+1)
	row[0] = true
	for i := range len(glob) {
		next := make([]bool, len(text)+1)
		for j := range next {
			if glob[i] == '*' {
				next[j] = row[j] || j > 0 && next[j-1]
			} else {
				next[j] = j > 0 && row[j-1] && glob[i] == text[j-1]
			}
		}
		row = next
	}
	return row[len(text)]
}
