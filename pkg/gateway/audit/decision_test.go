package audit

import (
	"regexp"
	"testing"

	"github.com/kube-zt/zt/pkg/wire"
)

func TestNewDecision(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z2-7]{16}$`)
	seen := map[wire.DecisionID]bool{}
	for range 1000 {
		id := NewDecision()
		if !form.MatchString(string(id)) || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}
