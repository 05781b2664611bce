package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

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
	if format == "json" {
		_, err := fmt.Fprintf(w, "%s\n", fault.EscapeJSON(data))
		return err
	}
	// JSON is YAML: read as such it keeps its order and needs no second set of
	// field names.
	var doc yaml.Node
	if err := yaml.Unmarshal(escapeYAML(data), &doc); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	plain(&doc)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	_, err = w.Write(escapeYAML(out.Bytes()))
	return err
}

// escapeYAML writes every character that no terminal should act on as an escape.
// The encoder leaves those alone that YAML calls printable (5.1), bidirectional
// overrides among them; plain has put quotes around every scalar that has one.
func escapeYAML(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			out = append(out, b[i:i+size]...)
		case r > 0xffff:
			out = fmt.Appendf(out, `\U%08x`, r)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += size
	}
	return out
}

// plain takes the JSON style off.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		var s yaml.Node
		s.SetString(n.Value)
		n.Style = s.Style
		if strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			n.Style = yaml.DoubleQuotedStyle
		}
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
