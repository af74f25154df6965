package catalog

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"github.com/posthorn/posthorn"
)

//go:embed builtin.yaml
var builtinFile []byte

// Builtin returns the catalogue of the relocation platform: cases, assignments
// and Posthorn's own operational types.
func Builtin() *Catalog { return builtin() }

var builtin = sync.OnceValue(func() *Catalog {
	f, err := parse(builtinFile)
	if err != nil {
		panic("catalog: built-in file: " + err.Error()) // the tests read every entry
	}
	return newCatalog(f.types)
})

// The modes of an operator's file.
const (
	modeExtend  = "extend"
	modeReplace = "replace"
)

// Load reads an operator's file. With "mode: extend" its types are added to the
// built-in ones, and take the place of those of the same name; with "mode:
// replace" they are all there is, beside the operational types, which always
// stay. Each schema is compiled and each example checked against it. An error
// names the file, the line, what is wrong there and how to mend it.
func Load(path string) (*Catalog, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("event types: %w", err)
	}
	f, err := parse(text)
	if err == nil {
		err = f.checkOperators()
	}
	if err != nil {
		if e, ok := errors.AsType[*lineError](err); ok {
			return nil, fmt.Errorf("event types: %s:%d: %s", path, e.line, e.text)
		}
		return nil, fmt.Errorf("event types: %s: %w", path, err)
	}
	return newCatalog(merge(Builtin().types, f)), nil
}

// merge puts an operator's types over the built-in ones.
func merge(base []Type, f *file) []Type {
	var types []Type
	at := make(map[string]int)
	for _, t := range base {
		if f.mode == modeExtend || t.Operational {
			at[t.Name] = len(types)
			types = append(types, t)
		}
	}
	for _, t := range f.types {
		if i, known := at[t.Name]; known {
			types[i] = t
		} else {
			types = append(types, t)
		}
	}
	return types
}

// file is what a catalogue file holds.
type file struct {
	yaml  yamlReader
	mode  string
	types []Type
	lines []int // where each type begins
}

// parse reads a file. Its errors are *lineError where a line is known.
func parse(text []byte) (*file, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("must hold \"mode: extend\" or \"mode: replace\" and a list \"types\"")
	}
	f := &file{}
	all, err := f.yaml.members(doc.Content[0], 0)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		switch m.name {
		case "mode":
			f.mode = m.value.Value
		case "types":
			err = f.readTypes(m.value)
		case "shared": // anchors to refer to
		default:
			err = faultAt(m.value, "has the unknown key %q; known are mode, types and shared", m.name)
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *file) readTypes(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return faultAt(n, "must hold the types as a list: each begins with \"- name: …\"")
	}
	seen := make(map[string]int)
	for _, item := range n.Content {
		t, err := f.readType(item)
		if err != nil {
			return err
		}
		if line, twice := seen[t.Name]; twice {
			return faultAt(item, "lists %s again; it is at line %d already", t.Name, line)
		}
		seen[t.Name] = item.Line
		f.types = append(f.types, t)
		f.lines = append(f.lines, item.Line)
	}
	return nil
}

func (f *file) readType(n *yaml.Node) (Type, error) {
	t := Type{Schema: jsontext.Value(`{"type":"object"}`), Example: jsontext.Value(`{}`)}
	if n.Kind != yaml.MappingNode {
		return t, faultAt(n, "must hold a type: name, description, schema, example, open")
	}
	all, err := f.yaml.members(n, 0)
	if err != nil {
		return t, err
	}
	for _, m := range all {
		switch m.name {
		case "name":
			t.Name = m.value.Value
		case "description":
			t.Description = strings.TrimSpace(m.value.Value)
		case "schema":
			t.Schema, err = f.yaml.json(m.value)
		case "example":
			t.Example, err = f.yaml.json(m.value)
		case "open":
			t.Namespace, err = readBool(m)
		case "operational":
			t.Operational, err = readBool(m)
		default:
			err = faultAt(m.value, "has the unknown key %q; a type has name, description, schema, example and open", m.name)
		}
		if err != nil {
			return t, err
		}
	}
	return t, checkType(n, t)
}

func readBool(m member) (bool, error) {
	if m.value.Tag != "!!bool" {
		return false, faultAt(m.value, "must say true or false for %q", m.name)
	}
	return strings.EqualFold(m.value.Value, "true"), nil
}

func checkType(n *yaml.Node, t Type) error {
	switch {
	case t.Name == "":
		return faultAt(n, "has a type without name")
	case !posthorn.Pattern(t.Name).Valid() || t.Name == "*":
		return faultAt(n, "has the name %q; a name is segments of a-z, 0-9, - and _ joined by dots, as in cases.tasks.created, or such a prefix and .*", t.Name)
	case t.Namespace && !isPrefix(t.Name):
		return faultAt(n, "opens %s; only a name that ends in .* can be open", t.Name)
	case t.Description == "":
		return faultAt(n, "gives %s no description; say in a sentence when it is sent", t.Name)
	case t.Schema.Kind() != '{' && t.Schema.Kind() != 't' && t.Schema.Kind() != 'f':
		return faultAt(n, "gives %s a schema that is not a mapping", t.Name)
	case t.Example.Kind() != '{':
		return faultAt(n, "gives %s an example that is not a mapping; an event's data is a JSON object", t.Name)
	}
	return nil
}

// checkOperators holds an operator's file to what Posthorn's own need not be held
// to again and again.
func (f *file) checkOperators() error {
	switch f.mode {
	case modeExtend, modeReplace:
	case "":
		return errors.New("says nothing of the built-in types; begin it with \"mode: extend\" to keep them or \"mode: replace\" to drop them")
	default:
		return fmt.Errorf("has mode %q; it must be extend or replace", f.mode)
	}
	if len(f.types) == 0 {
		return errors.New("lists no types")
	}
	for i, t := range f.types {
		if t.Operational || strings.HasPrefix(t.Name, posthorn.OperationalPrefix) {
			return &lineError{f.lines[i], fmt.Sprintf("has %s; operational types and names that begin with %s are Posthorn's own", t.Name, posthorn.OperationalPrefix)}
		}
		if err := t.check(); err != nil {
			return &lineError{f.lines[i], err.Error()}
		}
	}
	return nil
}
