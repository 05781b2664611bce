package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

var figureColumns = []string{"figure", "zt", "beside", "floor", "ratio", "target", ""}

func figureRow(f Figure) []string {
	unit := func(n float64) string {
		if f.Unit == "" || Number(n) == "–" {
			return Number(n)
		}
		return Number(n) + " " + f.Unit
	}
	if f.Beside == "" {
		target := f.Target.String()
		if target != "" && f.Unit != "" {
			target += " " + f.Unit
		}
		return []string{f.Name, unit(f.Value), "", "", "", target, f.Verdict()}
	}
	return []string{f.Name, unit(f.Value), f.Beside, unit(f.Floor), Number(f.Ratio), f.Target.String(), f.Verdict()}
}

// Text writes the report for a terminal.
func (r *Report) Text(w io.Writer) error {
	var out strings.Builder
	for _, f := range r.Facts {
		fmt.Fprintf(&out, "%s: %s\n", f.Name, f.Value)
	}
	for _, s := range r.Sections {
		s.text(&out)
	}
	if missed := r.Missed(); len(missed) > 0 {
		fmt.Fprintf(&out, "\nmisses its target (%d):\n", len(missed))
		for _, f := range missed {
			fmt.Fprintf(&out, "  %s\n", strings.Join(figureRow(f)[:6], "  "))
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// WriteText writes one section, as soon as it is there.
func (s *Section) WriteText(w io.Writer) error {
	var out strings.Builder
	s.text(&out)
	_, err := io.WriteString(w, out.String())
	return err
}

func (s *Section) text(out *strings.Builder) {
	fmt.Fprintf(out, "\n== %s ==\n", s.Title)
	figures := Table{Columns: figureColumns}
	for _, f := range s.Figures {
		figures.Rows = append(figures.Rows, figureRow(f))
	}
	figures.align(out)
	if len(s.Details.Rows) > 0 {
		out.WriteByte('\n')
		s.Details.align(out)
	}
}

// align writes columns of equal width, the first to the left and the others to
// the right, which text/tabwriter cannot do in one table.
func (t Table) align(out *strings.Builder) {
	if len(t.Rows) == 0 {
		return
	}
	width := make([]int, len(t.Columns))
	rows := append([][]string{t.Columns}, t.Rows...)
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// Markdown writes the report as the body of a page, without a title.
func (r *Report) Markdown(w io.Writer) error {
	var out strings.Builder
	for _, f := range r.Facts {
		fmt.Fprintf(&out, "- %s: %s\n", f.Name, f.Value)
	}
	for _, s := range r.Sections {
		fmt.Fprintf(&out, "\n## %s\n", s.Title)
		if s.Note != "" {
			fmt.Fprintf(&out, "\n%s\n", s.Note)
		}
		figures := Table{Columns: figureColumns}
		for _, f := range s.Figures {
			figures.Rows = append(figures.Rows, figureRow(f))
		}
		figures.markdown(&out)
		s.Details.markdown(&out)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (t Table) markdown(out *strings.Builder) {
	if len(t.Rows) == 0 {
		return
	}
	out.WriteByte('\n')
	line := func(cells []string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.Columns)
	rule := make([]string, len(t.Columns))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	line(rule)
	for _, row := range t.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.ReplaceAll(cell, "|", `\|`)
		}
		line(cells)
	}
}
