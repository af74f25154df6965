package cli

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// edit is one --set: a path into the data and the value to put there.
type edit struct {
	text  string
	path  []string
	value jsontext.Value
}

func parseEdits(texts []string) ([]edit, error) {
	edits := make([]edit, 0, len(texts))
	for _, text := range texts {
		path, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usage("--set %q has no =.", text).with("Write it as data.id=42.")
		}
		path, ok = strings.CutPrefix(path, "data.")
		parts := strings.Split(path, ".")
		if !ok {
			return nil, usage("--set %q does not begin with data.", text).with("Did you mean --set data.%s?", text)
		}
		for _, p := range parts {
			if p == "" {
				return nil, usage("--set %q has an empty name in its path.", text)
			}
		}
		v := jsontext.Value(value)
		if !v.IsValid() {
			quoted, err := jsontext.AppendQuote(nil, value)
			if err != nil {
				return nil, usage("--set %q is not UTF-8.", text)
			}
			v = quoted
		}
		edits = append(edits, edit{text, parts, bytes.TrimSpace(v)})
	}
	return edits, nil
}

// applyEdits returns data with the edits made, in their order. What they do not
// touch keeps its bytes.
func applyEdits(data jsontext.Value, edits []edit) (jsontext.Value, error) {
	for _, e := range edits {
		changed, err := put(data, e.path, e.value)
		if err != nil {
			return nil, usage("--set %s: %v.", e.text, err)
		}
		data = changed
	}
	return data, nil
}

// put returns v with the value at the path, in an object or an array; an
// object gets members that it lacks, an array may be appended to.
func put(v jsontext.Value, path []string, value jsontext.Value) (jsontext.Value, error) {
	if len(path) == 0 {
		return value, nil
	}
	name := path[0]
	switch v.Kind() {
	case '{':
		return putMember(v, name, path[1:], value)
	case '[':
		return putElement(v, name, path[1:], value)
	}
	return nil, fmt.Errorf("%q is within %s, which has no members", name, v)
}

func putMember(v jsontext.Value, name string, rest []string, value jsontext.Value) (jsontext.Value, error) {
	out := []byte{'{'}
	found := false
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() == '"' {
		rawKey, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		key := rawKey.Clone()
		old, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		if text, err := jsontext.AppendUnquote(nil, key); err != nil {
			return nil, err
		} else if string(text) == name {
			found = true
			if old, err = put(old, rest, value); err != nil {
				return nil, err
			}
		}
		out = appendMember(out, key, old)
	}
	if !found {
		key, err := jsontext.AppendQuote(nil, name)
		if err != nil {
			return nil, err
		}
		made, err := build(rest, value)
		if err != nil {
			return nil, err
		}
		out = appendMember(out, key, made)
	}
	return append(out, '}'), nil
}

func appendMember(out, key, value []byte) []byte {
	if len(out) > 1 {
		out = append(out, ',')
	}
	out = append(append(out, key...), ':')
	return append(out, value...)
}

func putElement(v jsontext.Value, name string, rest []string, value jsontext.Value) (jsontext.Value, error) {
	index, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("%q is within an array, whose members are numbered from 0", name)
	}
	out := []byte{'['}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	n := uint64(0)
	for ; d.PeekKind() != ']'; n++ {
		old, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		if n == index {
			if old, err = put(old, rest, value); err != nil {
				return nil, err
			}
		}
		if n > 0 {
			out = append(out, ',')
		}
		out = append(out, old...)
	}
	if index > n {
		return nil, fmt.Errorf("the array has %d elements, so %s is beyond its end", n, name)
	}
	if index == n {
		made, err := build(rest, value)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			out = append(out, ',')
		}
		out = append(out, made...)
	}
	return append(out, ']'), nil
}

// build makes the objects that a path needs around a value.
func build(path []string, value jsontext.Value) (jsontext.Value, error) {
	for i := len(path) - 1; i >= 0; i-- {
		key, err := jsontext.AppendQuote(nil, path[i])
		if err != nil {
			return nil, err
		}
		value = append(appendMember([]byte{'{'}, key, value), '}')
	}
	return value, nil
}
