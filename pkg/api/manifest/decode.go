package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-zt/zt/pkg/api/spelling"
)

// decoder fills one object from one document and remembers where things stood.
// It follows the Go type, so its depth is the type's and not the writer's.
type decoder struct {
	file  string
	lines map[string]int
	errs  []Error
}

// enough problems at once: whoever wrote them begins with the first ones.
const enough = 100

func (d *decoder) fail(n *yaml.Node, field, hint, format string, args ...any) {
	d.errs = append(d.errs, Error{File: d.file, Line: n.Line, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (d *decoder) faulty() []string {
	fields := make([]string, len(d.errs))
	for i, e := range d.errs {
		fields[i] = e.Field
	}
	return fields
}

// value decodes n into v, whose path is field.
func (d *decoder) value(n *yaml.Node, v reflect.Value, field string) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(n, field, "", "anchors and aliases are not read; write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, field, "", "a tag (%s) is not read", clip(n.Tag))
		return
	case n.ShortTag() == "!!null":
		d.fail(n, field, "", "has no value; leave the field out or give it one")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if _, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		d.text(n, v, field)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, field)
	case reflect.Map:
		d.words(n, v, field)
	case reflect.Slice:
		d.sequence(n, v, field)
	default:
		d.scalar(n, v, field)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, field, "", "wants fields, not %s", describe(n))
		return
	}
	known := fields(v)
	d.eachKey(n, field, func(key *yaml.Node, value *yaml.Node, path string) {
		target, ok := known[key.Value]
		if !ok {
			d.unknown(key, v.Type(), path, known)
			return
		}
		d.value(value, target, path)
	})
}

// eachKey calls yield for every key that stands once.
func (d *decoder) eachKey(n *yaml.Node, field string, yield func(key, value *yaml.Node, path string)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content) && len(d.errs) < enough; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 || key.ShortTag() == "!!merge" {
			d.fail(key, field, "", "a key is a plain word")
			continue
		}
		path := join(field, clip(key.Value))
		if before, twice := first[key.Value]; twice {
			d.fail(key, path, "", "stands here twice, first on line %d", before)
			continue
		}
		first[key.Value] = key.Line
		d.lines[path] = key.Line
		yield(key, value, path)
	}
}

func (d *decoder) unknown(key *yaml.Node, t reflect.Type, path string, known map[string]reflect.Value) {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	hint := ""
	if near := spelling.Nearest(key.Value, names); near != "" {
		hint = strconv.Quote(near)
	} else if inner := deeper(t, key.Value, 2); inner != "" {
		hint = strconv.Quote(inner)
	}
	if hint != "" || len(names) > 24 {
		d.fail(key, path, hint, "unknown field")
		return
	}
	d.fail(key, path, "", "unknown field; known are %s", strings.Join(names, ", "))
}

// words decodes a map of text to text.
func (d *decoder) words(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, field, "", "wants keys and values, not %s", describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.eachKey(n, field, func(key, value *yaml.Node, path string) {
		text := reflect.New(v.Type().Elem()).Elem()
		d.value(value, text, path)
		v.SetMapIndex(reflect.ValueOf(key.Value), text)
	})
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, field, "", "wants a list, not %s", describe(n))
		return
	}
	if len(n.Content) == 0 {
		// Absent means "any" for some lists; a list that somebody emptied, or a
		// template that rendered nothing, must not mean the same.
		d.fail(n, field, "", "is an empty list; leave the field out or fill it")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		path := fmt.Sprintf("%s[%d]", field, i)
		d.lines[path] = item.Line
		d.value(item, v.Index(i), path)
	}
}

// text decodes times and durations, which know their own textual form.
func (d *decoder) text(n *yaml.Node, v reflect.Value, field string) {
	form := "a time like 2026-01-31T12:00:00Z"
	if v.Type() == reflect.TypeFor[metav1.Duration]() {
		form = "a duration like 30s, 5m or 1h30m"
	}
	quoted, err := json.Marshal(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || json.Unmarshal(quoted, v.Addr().Interface()) != nil {
		d.fail(n, field, "", "wants %s, not %s", form, describe(n))
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, field, "", "wants %s, not %s", wants(v), describe(n))
		return
	}
	tag := n.ShortTag()
	switch {
	case v.Kind() == reflect.String && (tag == "!!str" || tag == "!!timestamp"):
		v.SetString(n.Value)
	case v.Kind() == reflect.String:
		d.fail(n, field, strconv.Quote(n.Value), "wants text, not %s; put it in quotes", describe(n))
	case v.Kind() == reflect.Bool && tag == "!!bool":
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case v.CanInt() && tag == "!!int":
		number, err := strconv.ParseInt(n.Value, 10, v.Type().Bits())
		if err != nil {
			d.fail(n, field, "", "%s is no decimal number of this size", clip(n.Value))
			return
		}
		v.SetInt(number)
	default:
		d.fail(n, field, "", "wants %s, not %s", wants(v), describe(n))
	}
}

// fields maps the JSON names of a struct to its fields. Of an object's metadata
// only what has a meaning here is known.
func fields(v reflect.Value) map[string]reflect.Value {
	known := map[string]reflect.Value{}
	if m, ok := v.Addr().Interface().(*metav1.ObjectMeta); ok {
		known["name"] = reflect.ValueOf(&m.Name).Elem()
		known["labels"] = reflect.ValueOf(&m.Labels).Elem()
		known["annotations"] = reflect.ValueOf(&m.Annotations).Elem()
		return known
	}
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		switch {
		case strings.Contains(options, "inline"):
			for inner, field := range fields(v.Field(i)) {
				known[inner] = field
			}
		case name != "" && name != "-":
			known[name] = v.Field(i)
		}
	}
	return known
}

// deeper finds name in the structs below t: people forget the "spec".
func deeper(t reflect.Type, name string, depth int) string {
	if depth == 0 {
		return ""
	}
	known := fields(reflect.New(t).Elem())
	for _, outer := range slices.Sorted(maps.Keys(known)) {
		inner := known[outer].Type()
		if inner.Kind() != reflect.Struct || inner == reflect.TypeFor[metav1.Time]() {
			continue
		}
		if _, ok := fields(reflect.New(inner).Elem())[name]; ok {
			return outer + "." + name
		}
		if found := deeper(inner, name, depth-1); found != "" {
			return outer + "." + found
		}
	}
	return ""
}

func wants(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.CanInt():
		return "a number"
	default:
		return "text"
	}
}

// describe names what stands at n, for "wants a list, not …".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!str":
		return fmt.Sprintf("the text %q", clip(n.Value))
	case "!!bool":
		return "the truth value " + clip(n.Value)
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	default:
		return clip(n.Value)
	}
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// clip keeps a message readable whatever was written.
func clip(value string) string {
	const longest = 80
	if len(value) > longest {
		value = strings.ToValidUTF8(value[:longest], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, value)
}
