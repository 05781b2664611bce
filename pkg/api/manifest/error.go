package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kube-zt/zt/pkg/api/v1alpha1"
)

// Error is one problem at one place.
type Error struct {
	File string
	// Line counts from 1; 0 when the problem has no line.
	Line int
	// Field is the path from the object's root, empty for the whole document.
	Field   string
	Message string
	// Hint is what was probably meant.
	Hint string
}

func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString(" (did you mean ")
		b.WriteString(e.Hint)
		b.WriteString("?)")
	}
	return b.String()
}

// Sort brings problems into the order in which a person walks through files.
func Sort(errs []Error) {
	slices.SortStableFunc(errs, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// locate gives problems of an object the lines of their fields. What only
// follows from a field that could not be decoded is left out.
func locate(file string, lines map[string]int, faulty []string, problems []v1alpha1.Problem) []Error {
	errs := make([]Error, 0, len(problems))
	for _, p := range problems {
		if slices.ContainsFunc(faulty, func(f string) bool { return related(f, p.Field) }) {
			continue
		}
		errs = append(errs, Error{File: file, Line: line(lines, p.Field), Field: p.Field, Message: p.Message, Hint: p.Hint})
	}
	Sort(errs)
	return errs
}

// line is that of the field, or of the nearest field around it that was written.
func line(lines map[string]int, field string) int {
	for {
		if l, ok := lines[field]; ok {
			return l
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			return lines[""]
		}
		field = field[:cut]
	}
}

// related reports whether one field is the other or lies in it.
func related(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	return strings.HasPrefix(b, a) && (len(a) == len(b) || a == "" || b[len(a)] == '.' || b[len(a)] == '[')
}
