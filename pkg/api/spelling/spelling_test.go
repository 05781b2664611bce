package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"clusters", "clusterSelector", "roles", "rules", "effect", "enforcement"}
	tests := []struct{ word, want string }{
		{"cluster", "clusters"},
		{"Clusters", "clusters"},
		{"clutsers", "clusters"}, // two neighbours swapped are one slip
		{"role", "roles"},
		{"ruels", "rules"},
		{"enforcment", "enforcement"},
		{"clusterselector", "clusterSelector"},
		{"banana", ""},
		{"", ""},
		{"x", ""},
		{strings.Repeat("a", 10_000), ""},
	}
	for _, tt := range tests {
		t.Run(tt.word[:min(len(tt.word), 20)], func(t *testing.T) {
			t.Parallel()
			if got := Nearest(tt.word, known); got != tt.want {
				t.Errorf("Nearest(%q) = %q, want %q", tt.word, got, tt.want)
			}
		})
	}
}

func TestNearestOfEqualsTakesTheFirst(t *testing.T) {
	t.Parallel()
	if got := Nearest("rxles", []string{"rules", "roles"}); got != "rules" {
		t.Errorf("got %q", got)
	}
}

func TestEditsIsSymmetric(t *testing.T) {
	t.Parallel()
	words := []string{"", "a", "ab", "ba", "kitten", "sitting", "namespace", "namesapce"}
	for _, a := range words {
		for _, b := range words {
			if x, y := edits([]byte(a), []byte(b)), edits([]byte(b), []byte(a)); x != y {
				t.Errorf("edits(%q, %q) = %d, the other way %d", a, b, x, y)
			}
		}
	}
	if d := edits([]byte("kitten"), []byte("sitting")); d != 3 {
		t.Errorf("kitten/sitting: %d, want 3", d)
	}
}
