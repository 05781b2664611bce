package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/spelling"
)

// Object is what every kind that stands in a configuration directory can do.
//
// +kubebuilder:object:generate=false
type Object interface {
	metav1.Object
	// Default fills what was left out. It comes before Validate.
	Default()
	// Validate reports every problem at once. now bounds what has an end.
	Validate(now time.Time) []Problem
}

// Problem is one fault of one object.
//
// +kubebuilder:object:generate=false
type Problem struct {
	// Field is the path from the object's root: spec.rules[0].verbs[1].
	Field   string
	Message string
	// Hint is what was probably meant; empty when nothing is near.
	Hint string
}

func (p Problem) Error() string {
	text := p.Field + ": " + p.Message
	if p.Hint != "" {
		text += " (did you mean " + p.Hint + "?)"
	}
	return text
}

// problems collects; its methods take the field first, like a sentence.
//
// +kubebuilder:object:generate=false
type problems []Problem

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, Problem{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (p *problems) hint(field, hint, format string, args ...any) {
	*p = append(*p, Problem{Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// word demands one of a closed list and names the nearest.
func word[S ~string](p *problems, field string, value S, known ...S) {
	if slices.Contains(known, value) {
		return
	}
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	hint := ""
	if near := spelling.Nearest(string(value), words); near != "" {
		hint = fmt.Sprintf("%q", near)
	}
	p.hint(field, hint, "%q is not known here; known are %s", value, list(words))
}

// distinct refuses a list that names the same thing twice: one of them was
// meant to be something else.
func distinct[S ~string](p *problems, field string, values []S) {
	for i, v := range values {
		if slices.Index(values, v) < i {
			p.add(at(field, i), "%q stands here twice", v)
		}
	}
}

func at(field string, index int) string { return fmt.Sprintf("%s[%d]", field, index) }

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
