package catalog

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// YAML aliases can refer to what they stand in, and multiply: a few lines make
// millions of values.
const (
	maxValueDepth = 100
	maxValueSize  = 1 << 20
	maxVisits     = 1 << 20
)

// yamlReader reads the nodes of one file and counts them.
type yamlReader struct{ visits int }

func (r *yamlReader) visit(n *yaml.Node, depth int) error {
	if r.visits++; r.visits > maxVisits {
		return faultAt(n, "refers to itself or to more than can be read; write it without so many aliases")
	}
	if depth > maxValueDepth {
		return faultAt(n, "is nested deeper than %d levels", maxValueDepth)
	}
	return nil
}

// json renders a node as JSON, members in the order of the file.
func (r *yamlReader) json(n *yaml.Node) (jsontext.Value, error) {
	b, err := r.appendNode(nil, n, 0)
	return jsontext.Value(b), err
}

func (r *yamlReader) appendNode(b []byte, n *yaml.Node, depth int) ([]byte, error) {
	if err := r.visit(n, depth); err != nil {
		return nil, err
	}
	if len(b) > maxValueSize {
		return nil, faultAt(n, "is larger than %d KiB", maxValueSize>>10)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return r.appendNode(b, n.Alias, depth+1)
	case yaml.ScalarNode:
		return appendScalar(b, n)
	case yaml.SequenceNode:
		return r.appendSequence(b, n, depth)
	case yaml.MappingNode:
		return r.appendMapping(b, n, depth)
	}
	return nil, faultAt(n, "is not a value")
}

func (r *yamlReader) appendSequence(b []byte, n *yaml.Node, depth int) (_ []byte, err error) {
	b = append(b, '[')
	for i, item := range n.Content {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = r.appendNode(b, item, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func (r *yamlReader) appendMapping(b []byte, n *yaml.Node, depth int) (_ []byte, err error) {
	all, err := r.members(n, depth)
	if err != nil {
		return nil, err
	}
	b = append(b, '{')
	for i, m := range all {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = jsontext.AppendQuote(b, m.name); err != nil {
			return nil, faultAt(m.value, "has a name that is not text")
		}
		b = append(b, ':')
		if b, err = r.appendNode(b, m.value, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

type member struct {
	name   string
	value  *yaml.Node
	merged bool // came by "<<"
}

// members lists a mapping's members. What "<<" merges in stands where "<<"
// stands, and gives way to the mapping's own member of the same name.
func (r *yamlReader) members(n *yaml.Node, depth int) ([]member, error) {
	if err := r.visit(n, depth); err != nil {
		return nil, err
	}
	var all []member
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if key.Tag == "!!merge" {
			if value.Kind != yaml.MappingNode {
				return nil, faultAt(key, "merges something other than one mapping")
			}
			inherited, err := r.members(value, depth+1)
			if err != nil {
				return nil, err
			}
			for _, m := range inherited {
				m.merged = true
				if at := indexOf(all, m.name); at < 0 {
					all = append(all, m)
				}
			}
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return nil, faultAt(key, "has a key that is not text")
		}
		m := member{name: key.Value, value: value}
		switch at := indexOf(all, m.name); {
		case at < 0:
			all = append(all, m)
		case all[at].merged:
			all[at] = m
		default:
			return nil, faultAt(key, "has %q twice", m.name)
		}
	}
	return all, nil
}

func indexOf(all []member, name string) int {
	for i, m := range all {
		if m.name == name {
			return i
		}
	}
	return -1
}

func appendScalar(b []byte, n *yaml.Node) ([]byte, error) {
	switch n.Tag {
	case "!!null":
		return append(b, "null"...), nil
	case "!!bool":
		return strconv.AppendBool(b, strings.EqualFold(n.Value, "true")), nil
	case "!!int":
		if v := jsontext.Value(n.Value); v.IsValid() {
			return append(b, n.Value...), nil // as written: no digit is lost
		}
		var i int64
		if err := n.Decode(&i); err != nil {
			return nil, faultAt(n, "has the number %s, which JSON cannot express; quote it to make it text", n.Value)
		}
		return strconv.AppendInt(b, i, 10), nil
	case "!!float":
		if v := jsontext.Value(n.Value); v.IsValid() {
			return append(b, n.Value...), nil
		}
		var f float64
		if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, faultAt(n, "has the number %s, which JSON cannot express; quote it to make it text", n.Value)
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64), nil
	case "!!binary":
		return nil, faultAt(n, "has !!binary, which JSON cannot express")
	}
	// Text, and dates without quotes, which JSON knows as text.
	b, err := jsontext.AppendQuote(b, n.Value)
	if err != nil {
		return nil, faultAt(n, "has text that is not UTF-8")
	}
	return b, nil
}

// lineError is a fault at a line of the file.
type lineError struct {
	line int
	text string
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d %s", e.line, e.text) }

func faultAt(n *yaml.Node, format string, args ...any) error {
	return &lineError{n.Line, fmt.Sprintf(format, args...)}
}
