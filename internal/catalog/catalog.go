// Package catalog holds the event types that may be published and subscribed
// to. The catalogue is data: a built-in file, which an operator's own file
// extends or replaces.
//
// A name in the catalogue is one of four things:
//
//   - an event type, "cases.created";
//   - an open namespace, "cases.tasks.*": every type below it may be published,
//     listed or not; those that are typical are listed;
//   - a group, "cases.*": a pattern that is documented because partners
//     subscribe to it; nothing is published under it that is not listed or below
//     an open namespace;
//   - an operational type, "webhooks.ping": made by Posthorn alone.
//
// Schemas describe; publishing does not enforce them.
package catalog

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// Type is one entry of the catalogue. Its values are shared: nobody changes them.
type Type struct {
	Name        string
	Description string
	// Schema is the JSON Schema (2020-12) of an event's data.
	Schema jsontext.Value
	// Example is a value of data that the schema holds for.
	Example jsontext.Value
	// Namespace marks an open namespace; its Name ends in ".*".
	Namespace bool
	// Operational types are made by Posthorn and never published by users.
	Operational bool
}

// Group reports whether the entry is a pattern to subscribe to and nothing else.
func (t Type) Group() bool { return isPrefix(t.Name) && !t.Namespace }

// Catalog is an immutable set of types, safe for concurrent use.
type Catalog struct {
	types      []Type // in the order of the files
	byName     map[string]int
	namespaces []int
}

// newCatalog takes ownership of types.
func newCatalog(types []Type) *Catalog {
	c := &Catalog{types: types, byName: make(map[string]int, len(types))}
	for i, t := range types {
		c.byName[t.Name] = i
		if t.Namespace {
			c.namespaces = append(c.namespaces, i)
		}
	}
	return c
}

// Types returns all entries, in the order of the file: an extension's new types
// follow the built-in ones. The caller may change the slice.
func (c *Catalog) Types() []Type { return slices.Clone(c.types) }

// Lookup finds an entry by its name. A type below an open namespace that is not
// listed gets the namespace's description, schema and example under its own name.
func (c *Catalog) Lookup(name string) (Type, bool) {
	if i, ok := c.byName[name]; ok {
		return c.types[i], true
	}
	if i, ok := c.namespaceOf(name); ok {
		t := c.types[i]
		t.Name, t.Namespace = name, false
		return t, true
	}
	return Type{}, false
}

// Publishable reports whether users may publish events of the type.
func (c *Catalog) Publishable(name string) bool {
	if i, ok := c.byName[name]; ok {
		return !c.types[i].Operational && !isPrefix(name)
	}
	_, ok := c.namespaceOf(name)
	return ok
}

// namespaceOf returns the narrowest open namespace that a type not listed lies in.
func (c *Catalog) namespaceOf(name string) (index int, ok bool) {
	if len(c.namespaces) == 0 || !posthorn.ValidType(name) {
		return 0, false
	}
	widest := 0
	for _, i := range c.namespaces {
		ns := c.types[i].Name
		if posthorn.Pattern(ns).Match(name) && len(ns) > widest {
			index, ok, widest = i, true, len(ns)
		}
	}
	return index, ok
}

// Matches reports whether the pattern matches a type that there is or may be: a
// listed one, or one below an open namespace. A group's own name matches what is
// below it.
func (c *Catalog) Matches(p posthorn.Pattern) bool {
	if !p.Valid() {
		return false
	}
	if p != "*" && !isPrefix(string(p)) {
		t, found := c.Lookup(string(p))
		return found && !isPrefix(t.Name)
	}
	prefix := strings.TrimSuffix(string(p), "*")
	for _, t := range c.types {
		if !isPrefix(t.Name) && p.Match(t.Name) {
			return true
		}
		// "cases.*" holds "cases.tasks.*", and that holds "cases.tasks.urgent.*".
		if ns := strings.TrimSuffix(t.Name, "*"); t.Namespace && p != "*" &&
			(strings.HasPrefix(ns, prefix) || strings.HasPrefix(prefix, ns)) {
			return true
		}
	}
	return false
}

func isPrefix(name string) bool { return strings.HasSuffix(name, ".*") }
