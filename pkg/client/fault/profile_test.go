package fault

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHintsNameTheProfile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ hint, want string }{
		{"kubectl zt login", "kubectl zt --profile p login"},
		{"if its administrator confirms it: kubectl zt trust --cluster prod", "if its administrator confirms it: kubectl zt --profile p trust --cluster prod"},
		{"kubectl zt clusters, kubectl zt connect CLUSTER", "kubectl zt --profile p clusters, kubectl zt --profile p connect CLUSTER"},
		{"kubectl zt --profile q login", "kubectl zt --profile q login"},
		{"kubectl zt agent --stop", "kubectl zt agent --stop"},
		{"kubectl zt --help", "kubectl zt --help"},
		{"check the network", "check the network"},
	} {
		f := New(ExitFailed, tc.hint, "no")
		once := f.ForProfile("p")
		if diff := cmp.Diff([]string{tc.want}, once.ForProfile("p").Hints); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if f.Hints[0] != tc.hint {
			t.Errorf("the fault itself was changed: %q", f.Hints)
		}
	}
}
