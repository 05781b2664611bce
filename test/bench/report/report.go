// Package report holds what the bench found: figures with their floors and
// targets, and the raw numbers behind them, as text for a terminal or as Markdown.
package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Report is the outcome of one run.
type Report struct {
	// Facts of the run: machine, versions, options. In the order they were given.
	Facts    []Fact
	Sections []*Section
}

// Fact is a line of the preamble.
type Fact struct{ Name, Value string }

// Section is one kind of measurement.
type Section struct {
	Title string
	// Note says how it was measured, in whole sentences.
	Note    string
	Figures []Figure
	Details Table
}

// Figure is a value of zt beside what it is to be judged by.
type Figure struct {
	Name string
	Unit string
	// Value of zt, NaN when zt was not measured.
	Value float64
	// Beside names the floor, and Floor is its value in the same run. Empty where
	// the value itself is judged.
	Beside string
	Floor  float64
	// Ratio of value to floor: the median over rounds, and so not always the
	// quotient of the two.
	Ratio float64
	// Target of the ratio, or of the value where nothing is beside it.
	Target Target
}

// Target is a bound; the zero value is none.
type Target struct {
	Bound   float64
	AtLeast bool // else at most
}

// AtLeast and AtMost are the two kinds of Target.
func AtLeast(bound float64) Target { return Target{Bound: bound, AtLeast: true} }
func AtMost(bound float64) Target  { return Target{Bound: bound} }

// String is empty for no target.
func (t Target) String() string {
	switch {
	case t == Target{}:
		return ""
	case t.AtLeast:
		return "≥ " + Number(t.Bound)
	default:
		return "≤ " + Number(t.Bound)
	}
}

// Verdict is "ok", "misses", or empty where there is no target or no value. It
// judges what is shown, three significant digits.
func (f Figure) Verdict() string {
	judged := f.Ratio
	if f.Beside == "" {
		judged = f.Value
	}
	if shown, err := strconv.ParseFloat(Number(judged), 64); err == nil {
		judged = shown
	}
	switch {
	case f.Target == Target{} || math.IsNaN(f.Value) || math.IsNaN(judged):
		return ""
	case f.Target.AtLeast && judged >= f.Target.Bound, !f.Target.AtLeast && judged <= f.Target.Bound:
		return "ok"
	default:
		return "misses"
	}
}

// Missed returns the figures of all sections that miss their target.
func (r *Report) Missed() []Figure {
	var missed []Figure
	for _, s := range r.Sections {
		for _, f := range s.Figures {
			if f.Verdict() == "misses" {
				missed = append(missed, f)
			}
		}
	}
	return missed
}

// Table is raw numbers: the first column names the row.
type Table struct {
	Columns []string
	Rows    [][]string
}

// Add adds a row of a name and numbers.
func (t *Table) Add(name string, numbers ...float64) {
	row := []string{name}
	for _, n := range numbers {
		row = append(row, Number(n))
	}
	t.Rows = append(t.Rows, row)
}

// Number writes three significant digits, and a dash for what was not measured.
func Number(n float64) string {
	switch {
	case math.IsNaN(n) || math.IsInf(n, 0):
		return "–"
	case math.Abs(n) >= 100:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case n == 0:
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(n))))
	text := strconv.FormatFloat(n, 'f', digits, 64)
	return trimZeros(text)
}

// trimZeros takes superfluous zeros after the point away.
func trimZeros(s string) string {
	if !slices.Contains([]byte(s), '.') {
		return s
	}
	for s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	if s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	return s
}

// AddFact adds a line to the preamble.
func (r *Report) AddFact(name, format string, args ...any) {
	r.Facts = append(r.Facts, Fact{name, fmt.Sprintf(format, args...)})
}
