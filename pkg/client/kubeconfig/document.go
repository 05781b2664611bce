package kubeconfig

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kube-zt/zt/pkg/client/fault"
)

// document is a kubeconfig as text with the positions of its lists. Edits are
// collected as replacements of whole lines and applied at once.
type document struct {
	name  string // of the file, for messages
	lines []string
	root  node // mapping; nil in an empty file
	edits []edit
	made  map[string]int // lists that an edit begins, by its index
}

// edit replaces lines [from,to), 0-based, by text.
type edit struct {
	from, to int
	text     string
}

// broken is the refusal of a file that cannot be edited safely. Who has trouble
// with a file of his own is helped by zt's; that one is made anew.
func broken(name, format string, args ...any) error {
	hint := "repair it, or use zt's own file: export KUBECONFIG=~/.kube/zt:" + name
	if strings.HasSuffix(name, "/.kube/zt") {
		hint = "repair it, or have it made anew: mv " + name + " " + name + ".broken && kubectl zt kubeconfig"
	}
	return fault.New(fault.ExitFailed, hint, "%s is left as it is: %s", name, fmt.Sprintf(format, args...))
}

func parse(name string, data []byte) (*document, error) {
	d := &document{name: name, lines: slices.Collect(strings.Lines(string(data))), made: map[string]int{}}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(&doc); err != nil {
		if strings.TrimSpace(stripComments(d.lines)) == "" {
			return d, nil
		}
		return nil, broken(name, "not YAML: %v", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, broken(name, "it holds more than one document")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return d, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, broken(name, "not a kubeconfig")
	}
	if root.Style&yaml.FlowStyle != 0 {
		return nil, broken(name, "it is written as JSON, which zt does not edit in place")
	}
	if v := lookup(root, "apiVersion"); v != nil && v.Value != "" && v.Value != "v1" {
		return nil, broken(name, "its apiVersion is %q, not v1", v.Value) // no kubectl loads it either
	}
	if k := lookup(root, "kind"); k != nil && k.Value != "Config" {
		return nil, broken(name, "its kind is %q, not Config", k.Value)
	}
	d.root = root
	for _, key := range []string{"clusters", "users", "contexts"} {
		if _, err := d.items(key); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func stripComments(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		if t := strings.TrimSpace(l); !strings.HasPrefix(t, "#") && t != "---" {
			b.WriteString(l)
		}
	}
	return b.String()
}

// items returns the elements of a list, or none.
func (d *document) items(key string) ([]node, error) {
	seq := lookup(d.root, key)
	switch {
	case seq == nil, seq.Kind == yaml.ScalarNode && seq.Tag == "!!null":
		return nil, nil
	case seq.Kind != yaml.SequenceNode:
		return nil, broken(d.name, "%s is not a list", key)
	case len(seq.Content) > 0 && seq.Style&yaml.FlowStyle != 0:
		return nil, broken(d.name, "%s is written in one line, which zt does not edit in place", key)
	}
	for _, item := range seq.Content {
		if item.Kind != yaml.MappingNode {
			return nil, broken(d.name, "%s holds something without a name", key)
		}
	}
	return seq.Content, nil
}

func named(items []node, name string) node {
	for _, item := range items {
		if n := lookup(item, "name"); n != nil && n.Value == name {
			return item
		}
	}
	return nil
}

// put sets the item called name of a list. The existing one is changed by
// change and rewritten only if that reports a change; with fresh it is made anew.
func (d *document) put(key, name string, fresh bool, change func(node) bool) error {
	items, _ := d.items(key)
	old := named(items, name)
	item := old
	if old == nil || fresh {
		item = newItem(name)
	}
	if !change(item) {
		return nil
	}
	if old == nil {
		return d.add(key, item)
	}
	text, err := render(item, d.indent(key))
	from, to := d.span(key, old)
	d.edits = append(d.edits, edit{from, to, text})
	return err
}

// add appends item to a list, which it makes where there is none.
func (d *document) add(key string, item node) error {
	text, err := render(item, d.indent(key))
	if err != nil {
		return err
	}
	if items, _ := d.items(key); len(items) > 0 {
		_, end := d.span(key, items[len(items)-1])
		d.edits = append(d.edits, edit{end, end, text})
		return nil
	}
	if i, ok := d.made[key]; ok {
		d.edits[i].text += text
		return nil
	}
	d.made[key] = len(d.edits)
	from, to, head := d.end(), d.end(), key+":"
	if at, present := d.keyLine(key); present { // `key: []`, `key: null` or `key:`
		from, to = at, at+1
		if c := lookup(d.root, key).LineComment; c != "" {
			head += " " + c
		}
	}
	d.edits = append(d.edits, edit{from, to, head + "\n" + text})
	return nil
}

// remove drops the named items; a list that becomes empty stays as `key: []`.
func (d *document) remove(key string, names []string) {
	items, _ := d.items(key)
	var gone []node
	for _, item := range items {
		if n := lookup(item, "name"); n != nil && slices.Contains(names, n.Value) {
			gone = append(gone, item)
		}
	}
	for _, item := range gone {
		from, to := d.span(key, item)
		d.edits = append(d.edits, edit{from, to, ""})
	}
	if len(gone) > 0 && len(gone) == len(items) {
		at, _ := d.keyLine(key)
		d.edits = append(d.edits, edit{at, at + 1, key + ": []\n"})
	}
}

// setScalar sets a top-level value such as current-context.
func (d *document) setScalar(key, value string) {
	text, err := yaml.Marshal(map[string]string{key: value})
	if err != nil {
		return
	}
	if at, present := d.keyLine(key); present {
		if lookup(d.root, key).Value != value {
			d.edits = append(d.edits, edit{at, at + 1, string(text)})
		}
		return
	}
	d.edits = append(d.edits, edit{d.end(), d.end(), string(text)})
}

// end is the line after the last one of the document: that of its end marker, if
// it has one.
func (d *document) end() int {
	from := 0
	if d.root != nil {
		from = d.root.Content[max(0, len(d.root.Content)-2)].Line
	}
	for l := from; l < len(d.lines); l++ {
		if strings.HasPrefix(d.lines[l], "...") {
			return l
		}
	}
	return len(d.lines)
}

// keyLine is the line of a top-level key.
func (d *document) keyLine(key string) (int, bool) {
	if d.root == nil {
		return 0, false
	}
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		if d.root.Content[i].Value == key {
			return d.root.Content[i].Line - 1, true
		}
	}
	return 0, false
}

// indent is the column of a list's dashes.
func (d *document) indent(key string) int {
	if items, _ := d.items(key); len(items) > 0 {
		return lookup(d.root, key).Column - 1
	}
	return 0
}

// span is the lines of one item: from its dash to before the next item, the
// next top-level key or the end, without the comments and blank lines in front
// of those, which belong to what follows. What looks like a comment but stands
// deeper than the dash may be part of a block of text.
func (d *document) span(key string, item node) (from, to int) {
	items, _ := d.items(key)
	from = d.dash(key, item)
	to = d.end()
	if i := slices.Index(items, item); i+1 < len(items) {
		to = d.dash(key, items[i+1])
	} else {
		for i := 0; i < len(d.root.Content); i += 2 {
			if l := d.root.Content[i].Line - 1; l > from && l < to {
				to = l
			}
		}
	}
	for to > from+1 {
		text := strings.TrimLeft(d.lines[to-1], " \t")
		deep := len(d.lines[to-1])-len(text) > lookup(d.root, key).Column-1
		if text = strings.TrimSpace(text); text != "" && (deep || text[0] != '#') {
			break
		}
		to--
	}
	return from, to
}

// dash is the line of an item's dash, which may stand alone above its keys.
func (d *document) dash(key string, item node) int {
	col := lookup(d.root, key).Column - 1
	for l := item.Line - 1; l > 0; l-- {
		if line := d.lines[l]; len(line) > col && line[col] == '-' && strings.TrimSpace(line[:col]) == "" {
			return l
		}
	}
	return item.Line - 1
}

// text applies the edits. An insertion goes before a replacement that starts on
// the same line, and insertions keep their order.
func (d *document) text() string {
	slices.SortStableFunc(d.edits, func(a, b edit) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.to - b.to
	})
	var b strings.Builder
	next := 0
	for _, e := range d.edits {
		for ; next < e.from; next++ {
			b.WriteString(d.lines[next])
		}
		if s := b.String(); s != "" && e.text != "" && !strings.HasSuffix(s, "\n") {
			b.WriteByte('\n') // the file did not end in a newline
		}
		b.WriteString(e.text)
		next = max(next, e.to)
	}
	for ; next < len(d.lines); next++ {
		b.WriteString(d.lines[next])
	}
	return b.String()
}

// present proves that each of the named items stands in the text once.
func present(name, text string, mine map[string][]string) error {
	d, err := parse(name, []byte(text))
	if err != nil {
		return err
	}
	for key, names := range mine {
		items, _ := d.items(key)
		for _, n := range names {
			if named(items, n) == nil {
				return broken(name, "%s %q would not be readable", key, n)
			}
		}
	}
	return nil
}

// unchanged proves that but for the named items two kubeconfigs say the same.
// It is the guard behind the editor: a mistake there must not cost an entry.
func unchanged(before, after []byte, mine map[string][]string, scalars []string) error {
	rest := func(data []byte) (map[string]any, error) {
		var m map[string]any
		if err := yaml.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		for _, key := range []string{"clusters", "users", "contexts"} {
			list, _ := m[key].([]any)
			kept := []any{}
			for _, item := range list {
				if entry, ok := item.(map[string]any); ok {
					if name, _ := entry["name"].(string); slices.Contains(mine[key], name) {
						continue
					}
				}
				kept = append(kept, item)
			}
			m = put(m, key, kept)
		}
		for _, key := range scalars {
			delete(m, key)
		}
		return m, nil
	}
	x, err := rest(before)
	if err != nil {
		return err
	}
	y, err := rest(after)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(x, y) {
		return fmt.Errorf("entries that are not zt's would change")
	}
	return nil
}

func put(m map[string]any, key string, v any) map[string]any {
	if m == nil {
		m = map[string]any{}
	}
	m[key] = v
	return m
}
