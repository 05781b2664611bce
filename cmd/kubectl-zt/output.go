package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// printStructured writes v as JSON or YAML, harmless to the terminal it may end
// up on.
func printStructured(w io.Writer, format string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	data = fault.EscapeJSON(data)
	if format == "json" {
		_, err := fmt.Fprintf(w, "%s\n", data)
		return err
	}
	// JSON is YAML: read as such it keeps its order and needs no second set of
	// field names.
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	plain(&doc)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	_, err = w.Write(out.Bytes())
	return err
}

// plain takes the JSON style off.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		var s yaml.Node
		s.SetString(n.Value)
		n.Style = s.Style
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// table writes rows of cells the way kubectl does.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) *table {
	return &table{tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)}
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		if c == "" {
			c = "-"
		}
		fmt.Fprint(t.w, fault.Escape(c))
	}
	fmt.Fprintln(t.w)
}

func (t *table) flush() { t.w.Flush() }

// facts writes names and values, one a line; empty values are left out.
func facts(w io.Writer, pairs ...string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(t, "  %s\t%s\n", pairs[i], fault.Escape(pairs[i+1]))
		}
	}
	t.Flush()
}

// until says when something ends, and in how long.
func until(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	layout := "15:04"
	local, today := t.Local(), now.Local()
	if local.YearDay() != today.YearDay() || local.Year() != today.Year() {
		layout = "Mon Jan 2 15:04"
	}
	if !t.After(now) {
		return local.Format(layout) + " (over)"
	}
	return local.Format(layout) + " (in " + duration(t.Sub(now)) + ")"
}

// duration has one or two units: nobody needs the seconds of twelve hours.
func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		if m := int(d.Minutes()) % 60; m != 0 {
			return fmt.Sprintf("%dh%dm", int(d.Hours()), m)
		}
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}
