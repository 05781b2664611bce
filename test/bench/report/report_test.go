package report

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNumber(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{
		0: "0", 1: "1", 1.5: "1.5", 0.8512: "0.851", 12.34: "12.3", 99.96: "100", 1234.5: "1234", 0.00123: "0.00123",
		math.NaN(): "–", math.Inf(1): "–", 100: "100", 10: "10",
	} {
		if got := Number(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		f    Figure
		want string
	}{
		{"no target", Figure{Value: 1, Beside: "floor", Ratio: 1}, ""},
		{"not measured", Figure{Value: math.NaN(), Beside: "floor", Ratio: math.NaN(), Target: AtMost(1)}, ""},
		{"at most, on it", Figure{Value: 5, Beside: "floor", Ratio: 1.15, Target: AtMost(1.15)}, "ok"},
		{"at most, above", Figure{Value: 5, Beside: "floor", Ratio: 1.16, Target: AtMost(1.15)}, "misses"},
		{"at most, above by less than is shown", Figure{Value: 5, Beside: "floor", Ratio: 1.1504, Target: AtMost(1.15)}, "ok"},
		{"at least, above", Figure{Value: 5, Beside: "floor", Ratio: 0.95, Target: AtLeast(0.9)}, "ok"},
		{"at least, below", Figure{Value: 5, Beside: "floor", Ratio: 0.85, Target: AtLeast(0.9)}, "misses"},
		{"the value itself", Figure{Value: 61, Target: AtMost(60)}, "misses"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := test.f.Verdict(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func sample() *Report {
	r := &Report{}
	r.AddFact("machine", "%d cores", 2)
	s := &Section{Title: "GET", Note: "One pod.", Figures: []Figure{
		{Name: "16 in parallel", Unit: "req/s", Value: 850, Beside: "floor", Floor: 1000, Ratio: 0.85, Target: AtLeast(0.9)},
		{Name: "idle", Unit: "MiB", Value: 30, Target: AtMost(60)},
	}}
	s.Details.Columns = []string{"way", "p50 ms"}
	s.Details.Add("direct", 1.5)
	s.Details.Add("a|b", math.NaN())
	r.Sections = append(r.Sections, s)
	return r
}

func TestText(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := sample().Text(&out); err != nil {
		t.Fatal(err)
	}
	const want = `machine: 2 cores

== GET ==
figure                 zt  beside       floor  ratio    target
16 in parallel  850 req/s   floor  1000 req/s   0.85     ≥ 0.9  misses
idle               30 MiB                             ≤ 60 MiB      ok

way     p50 ms
direct     1.5
a|b          –

misses its target (1):
  16 in parallel  850 req/s  floor  1000 req/s  0.85  ≥ 0.9
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := sample().Markdown(&out); err != nil {
		t.Fatal(err)
	}
	const want = `- machine: 2 cores

## GET

One pod.

| figure | zt | beside | floor | ratio | target |  |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| 16 in parallel | 850 req/s | floor | 1000 req/s | 0.85 | ≥ 0.9 | misses |
| idle | 30 MiB |  |  |  | ≤ 60 MiB | ok |

| way | p50 ms |
| --- | ---: |
| direct | 1.5 |
| a\|b | – |
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
