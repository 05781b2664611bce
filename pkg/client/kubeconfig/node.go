package kubeconfig

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a position in the parsed file. The tools below treat a mapping as what
// it is in yaml.v3: its keys and values in turn.
type node = *yaml.Node

func scalar(s string) node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func lookup(m node, key string) node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// child returns the mapping under key and makes it where there is none.
func child(m node, key string) (node, bool) {
	if c := lookup(m, key); c != nil && c.Kind == yaml.MappingNode {
		return c, false
	}
	c := &yaml.Node{Kind: yaml.MappingNode}
	set(m, key, c)
	return c, true
}

// set gives key the value and reports whether it had another.
func set(m node, key string, value node) bool {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			if sameValue(m.Content[i+1], value) {
				return false
			}
			m.Content[i+1] = value
			return true
		}
	}
	m.Content = append(m.Content, scalar(key), value)
	return true
}

func drop(m node, key string) bool {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content = append(m.Content[:i], m.Content[i+2:]...)
			return true
		}
	}
	return false
}

// sameValue compares what two nodes mean, not how they are written.
func sameValue(a, b node) bool {
	var x, y any
	if a.Decode(&x) != nil || b.Decode(&y) != nil {
		return false
	}
	p, err1 := yaml.Marshal(x)
	q, err2 := yaml.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

// newItem is a list item with a name; kubectl writes its name last, people
// first, and both read it.
func newItem(name string) node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	set(m, "name", scalar(name))
	return m
}

// render writes item as an element of a block list whose dash stands in column
// indent (0-based).
func render(item node, indent int) (string, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}); err != nil {
		return "", err
	}
	if err := enc.Close(); err != nil {
		return "", err
	}
	if indent == 0 {
		return b.String(), nil
	}
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(strings.Repeat(" ", indent))
		out.WriteString(line)
	}
	return out.String(), nil
}
