package catalog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
)

// referenceTypes is the reference's list of event types, with line breaks where
// the reference lost them.
const referenceTypes = `
cases.* cases.created cases.updated cases.closed cases.archived cases.unarchived cases.tasks.* cases.expenses.*
assignments.* assignments.created assignments.updated assignments.status.updated assignments.archived
assignments.unarchived assignments.extensions.created assignments.contacts.* assignments.billing-details.*`

func TestBuiltinHasTheReferencesTypes(t *testing.T) {
	c := Builtin()
	for _, name := range strings.Fields(referenceTypes) {
		e, found := c.Lookup(name)
		if !found {
			t.Errorf("%s is missing", name)
			continue
		}
		group := name == "cases.*" || name == "assignments.*"
		if e.Group() != group || e.Namespace != (strings.HasSuffix(name, ".*") && !group) || e.Operational {
			t.Errorf("%s is group=%v namespace=%v operational=%v", name, e.Group(), e.Namespace, e.Operational)
		}
		if !c.Matches(posthorn.Pattern(name)) {
			t.Errorf("%s cannot be subscribed to", name)
		}
		if got, want := c.Publishable(name), !strings.HasSuffix(name, ".*"); got != want {
			t.Errorf("Publishable(%s) = %v, want %v", name, got, want)
		}
	}
	// Nothing else outside the open namespaces, or partners rely on what may go.
	for _, e := range c.Types() {
		listed := strings.Contains(" "+strings.Join(strings.Fields(referenceTypes), " ")+" ", " "+e.Name+" ")
		if _, below := c.namespaceOf(e.Name); !listed && !below && !e.Operational {
			t.Errorf("%s is not the reference's", e.Name)
		}
	}
}

func TestEveryTypeIsDescribedAndItsExampleFits(t *testing.T) {
	for _, e := range Builtin().Types() {
		if err := e.check(); err != nil {
			t.Errorf("builtin.yaml %v", err)
		}
		if !strings.HasSuffix(e.Description, ".") {
			t.Errorf("%s: the description %q is no sentence", e.Name, e.Description)
		}
		var schema struct {
			Schema     string         `json:"$schema"`
			Title      string         `json:"title"`
			Open       bool           `json:"additionalProperties"`
			Required   []string       `json:"required"`
			Properties map[string]any `json:"properties"`
		}
		if err := json.Unmarshal(e.Schema, &schema); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		if schema.Schema != "https://json-schema.org/draft/2020-12/schema" || schema.Title == "" || !schema.Open || len(schema.Required) == 0 {
			t.Errorf("%s: a schema names its draft and title, requires something and stays open", e.Name)
		}
		if e.Group() {
			continue
		}
		// A member of the example that the schema does not know is a typo in one.
		var example map[string]any
		if err := json.Unmarshal(e.Example, &example); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		for name := range example {
			if _, known := schema.Properties[name]; !known {
				t.Errorf("%s: the example has %s, which the schema does not describe", e.Name, name)
			}
		}
		for name := range schema.Properties {
			if _, shown := example[name]; !shown {
				t.Errorf("%s: the schema describes %s, which the example does not show", e.Name, name)
			}
		}
	}
}

func TestExamplesTellOneStory(t *testing.T) {
	c := Builtin()
	for name, want := range map[string]string{
		"cases.created":                       `{"id":590,"type":"relocation","status":"open",`,
		"cases.closed":                        `{"id":590,"type":"relocation","status":"closed",`,
		"assignments.created":                 `{"id":122,"type":"relocation","status":"draft",`,
		"cases.tasks.completed":               `{"id":8812,"case_id":590,`,
		"assignments.extensions.created":      `{"id":58,"assignment_id":122,`,
		"assignments.billing-details.updated": `{"id":305,"assignment_id":122,`,
	} {
		if e, _ := c.Lookup(name); !strings.HasPrefix(string(e.Example), want) {
			t.Errorf("%s: example is %s, want it to begin %s", name, e.Example, want)
		}
	}
	e, _ := c.Lookup("assignments.updated")
	for _, want := range []string{`"client_id":77`, `"expat_id":101`, `"home_country":"AL"`, `"host_country":"DE"`} {
		if !strings.Contains(string(e.Example), want) {
			t.Errorf("assignments.updated: example does not hold %s", want)
		}
	}
}

func TestWhatMayBePublished(t *testing.T) {
	c := Builtin()
	for name, want := range map[string]bool{
		"cases.created":                      true,
		"cases.tasks.completed":              true,
		"cases.tasks.anything-at_all":        true,
		"cases.tasks.checklist.item.done":    true,
		"assignments.billing-details.frozen": true,
		"cases.deleted":                      false,
		"cases.tasks":                        false,
		"cases.tasks.":                       false,
		"cases.tasks.*":                      false,
		"cases.*":                            false,
		"cases.tasks.Created":                false,
		"cases.tasks.a..b":                   false,
		"webhooks.ping":                      false,
		"webhooks.endpoint.other":            false,
		"*":                                  false,
		"":                                   false,
	} {
		if got := c.Publishable(name); got != want {
			t.Errorf("Publishable(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestWhichPatternsMatchSomething(t *testing.T) {
	c := Builtin()
	for p, want := range map[posthorn.Pattern]bool{
		"*": true, "cases.*": true, "cases.created": true, "cases.tasks.*": true,
		"cases.tasks.new-one": true, "cases.tasks.urgent.*": true,
		"assignments.status.*": true, "assignments.extensions.*": true,
		"webhooks.*": true, "webhooks.endpoint.*": true, "webhooks.ping": true,
		"cases": false, "case.*": false, "cases.created.*": false, "cases.deleted": false,
		"webhooks.nothing": false, "cases.": false, "**": false, "": false, "cases.*.created": false,
	} {
		if got := c.Matches(p); got != want {
			t.Errorf("Matches(%q) = %v, want %v", p, got, want)
		}
	}
}

func TestUnlistedTypeOfAnOpenNamespaceIsDescribed(t *testing.T) {
	c := Builtin()
	ns, _ := c.Lookup("cases.tasks.*")
	got, found := c.Lookup("cases.tasks.escalated")
	want := Type{Name: "cases.tasks.escalated", Description: ns.Description, Schema: ns.Schema, Example: ns.Example}
	if diff := cmp.Diff(want, got); !found || diff != "" {
		t.Errorf("Lookup: found=%v (-want +got):\n%s", found, diff)
	}
	if e, _ := c.Lookup("cases.tasks.completed"); e.Description == ns.Description {
		t.Error("a listed member must have its own description")
	}
	if _, found := c.Lookup("cases.nothing"); found {
		t.Error("a type that is not there was found")
	}
}

func TestSuggestNamesTheNearest(t *testing.T) {
	c := Builtin()
	for name, want := range map[string]string{
		"case.created":                      "cases.created",
		"cases.create":                      "cases.created",
		"Cases.Created":                     "cases.created",
		"cases/created":                     "cases.created",
		"cases.craeted":                     "cases.created",
		"cases.task.created":                "cases.tasks.created",
		"assignment.updated":                "assignments.updated",
		"assignments.extension.created":     "assignments.extensions.created",
		"assignments.billing_details.*":     "assignments.billing-details.*",
		"case.*":                            "cases.*",
		"invoices.paid":                     "",
		"":                                  "",
		strings.Repeat("cases.created", 20): "",
	} {
		if got := c.Suggest(name); got != want {
			t.Errorf("Suggest(%q) = %q, want %q", name, got, want)
		}
	}
}

const orders = `
types:
  - name: orders.placed
    description: An order was placed.
    schema: {type: object, required: [id], properties: {id: {type: integer}}}
    example: {id: 20000000000000000001, at: 2026-04-29}
  - name: cases.created
    description: Ours is another one.
    example: {number: 1.0}
  - name: orders.items.*
    description: An item of an order changed.
    open: true
`

func load(t *testing.T, text string) (*Catalog, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "types.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func TestOperatorsFileExtends(t *testing.T) {
	c, err := load(t, "mode: extend"+orders)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := c.Lookup("orders.placed")
	if got, want := string(e.Example), `{"id":20000000000000000001,"at":"2026-04-29"}`; got != want {
		t.Errorf("example = %s, want %s", got, want)
	}
	if e, _ := c.Lookup("cases.created"); e.Description != "Ours is another one." || string(e.Example) != `{"number":1.0}` {
		t.Errorf("cases.created = %+v, want the operator's", e)
	}
	if len(c.Types()) != len(Builtin().Types())+2 {
		t.Errorf("%d types, want two more than built in", len(c.Types()))
	}
	if !c.Publishable("cases.updated") || !c.Publishable("orders.items.added") || !c.Matches("orders.*") {
		t.Error("built-in and own types must both be there")
	}
	if e, _ := Builtin().Lookup("cases.created"); e.Description == "Ours is another one." {
		t.Error("the built-in catalogue was changed")
	}
}

func TestValuesOfAnOperatorsFileAreJSON(t *testing.T) {
	c, err := load(t, `
mode: extend
shared:
  base: &base {a: 1, b: 2}
types:
  - name: a.b
    description: x
    example:
      numbers: [0x10, 1_000, +7, 1.50, .5, 1e3, -0, 12345678901234567890123]
      words: [true, False, null, ~, "yes", 2026-04-29, "1", é]
      text: |
        two
        lines
      merged: {z: 0, <<: *base, a: own}
      empty: {}
`)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := c.Lookup("a.b")
	want := `{"numbers":[16,1000,7,1.50,0.5,1e3,-0,12345678901234567890123],` +
		`"words":[true,false,null,null,"yes","2026-04-29","1","é"],"text":"two\nlines\n",` +
		`"merged":{"z":0,"a":"own","b":2},"empty":{}}`
	if diff := cmp.Diff(want, string(e.Example)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOperatorsFileReplaces(t *testing.T) {
	c, err := load(t, "mode: replace"+orders)
	if err != nil {
		t.Fatal(err)
	}
	if c.Publishable("cases.updated") || !c.Publishable("orders.placed") {
		t.Error("only the operator's types may be published")
	}
	if !c.Matches("webhooks.endpoint.*") {
		t.Error("the operational types are gone")
	}
}

func TestFaultsOfAnOperatorsFileAreNamed(t *testing.T) {
	const head = "mode: extend\ntypes:\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", `must hold "mode: extend"`},
		"not yaml":       {"a: [", "is not YAML"},
		"no mode":        {"types: [{name: a.b, description: x}]", "says nothing of the built-in types"},
		"bad mode":       {"mode: add\ntypes: [{name: a.b, description: x}]", `mode "add"; it must be extend or replace`},
		"no types":       {"mode: extend", "lists no types"},
		"unknown key":    {"mode: extend\ntype: []", `:2: has the unknown key "type"; known are`},
		"not a list":     {"mode: extend\ntypes: {a: b}", ":2: must hold the types as a list"},
		"type key":       {head + "  - {name: a.b, descripton: x}", `:3: has the unknown key "descripton"`},
		"no name":        {head + "  - {description: x}", ":3: has a type without name"},
		"bad name":       {head + "\n  - {name: A.b, description: x}", `:4: has the name "A.b"; a name is segments`},
		"star":           {head + "  - {name: '*', description: x}", `has the name "*"`},
		"no description": {head + "  - {name: a.b}", "gives a.b no description"},
		"open type":      {head + "  - {name: a.b, description: x, open: true}", "only a name that ends in .* can be open"},
		"open text":      {head + "  - {name: a.*, description: x, open: maybe}", `must say true or false for "open"`},
		"twice":          {head + "  - {name: a.b, description: x}\n  - {name: a.b, description: y}", ":4: lists a.b again; it is at line 3"},
		"operational":    {head + "  - {name: webhooks.x, description: x}", "are Posthorn's own"},
		"example list":   {head + "  - {name: a.b, description: x, example: [1]}", "an example that is not a mapping"},
		"infinite":       {head + "  - {name: a.b, description: x, example: {n: .inf}}", "which JSON cannot express"},
		"binary":         {head + "  - {name: a.b, description: x, example: {n: !!binary aGk=}}", "has !!binary"},
		"merged list":    {head + "  - {name: a.b, description: x, example: {<<: [1]}}", "merges something other than one mapping"},
		"key list":       {head + "  - {name: a.b, description: x, example: {[1]: 1}}", "has a key that is not text"},
		"text type":      {head + "  - a.b", ":3: must hold a type"},
		"text schema":    {head + "  - {name: a.b, description: x, schema: text}", "gives a.b a schema that is not a mapping"},
		"bad date":       {head + "  - {name: a.b, description: x, schema: {properties: {d: {format: date}}}, example: {d: 2026-02-30}}", "at '/d'"},
		"bad schema":     {head + "  - {name: a.b, description: x, schema: {type: objekt}}", ":3: gives a.b a schema that is not valid JSON Schema"},
		"example":        {head + "  - {name: a.b, description: x, schema: {required: [id]}, example: {}}", ":3: gives a.b an example that its schema refuses: at '': missing property 'id'"},
		"remote ref":     {head + "  - {name: a.b, description: x, schema: {$ref: 'file:///etc/passwd'}}", "must hold all that they refer to"},
		"member twice":   {head + "  - {name: a.b, name: a.c, description: x}", `:3: has "name" twice`},
		"alias loop":     {head + "  - {name: a.b, description: x, example: &e {a: *e}}", "nested deeper than"},
		"merge loop":     {head + "  - {name: a.b, description: x, example: &e {<<: *e}}", "nested deeper than"},
		"merges": {"mode: extend\nshared:\n  a: &a {x: 1}\n" + merges() + head[13:] +
			"  - {name: a.b, description: x, example: *z}", "without so many aliases"},
		"laughs": {"mode: extend\nshared:\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n" + laughs() + head[13:] +
			"  - {name: a.b, description: x, example: {a: *z}}", "larger than 1024 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "types.yaml") {
				t.Errorf("error %q does not say %q and the file", err, c.want)
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("missing file: %v", err)
	}
}

// laughs makes ten times ten times ten… of a value, seven times over, as z.
func laughs() string {
	var b strings.Builder
	last := "a"
	for _, name := range []string{"b", "c", "d", "e", "f", "g", "z"} {
		b.WriteString("  " + name + ": &" + name + " [" + strings.Repeat("*"+last+", ", 9) + "*" + last + "]\n")
		last = name
	}
	return b.String()
}

// merges makes a mapping of two of two of two…, 40 times over, as z.
func merges() string {
	var b strings.Builder
	last := "a"
	for i := range 40 {
		name := fmt.Sprintf("m%d", i)
		if i == 39 {
			name = "z"
		}
		fmt.Fprintf(&b, "  %s: &%s {<<: *%s, <<: *%s}\n", name, name, last, last)
		last = name
	}
	return b.String()
}

func FuzzParseNeverPanics(f *testing.F) {
	f.Add([]byte("mode: extend" + orders))
	f.Add([]byte("types: [&a {<<: *a}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := parse(text)
		if err != nil {
			return
		}
		for _, e := range parsed.types {
			if !e.Schema.IsValid() || !e.Example.IsValid() {
				t.Errorf("%s: schema %s, example %s", e.Name, e.Schema, e.Example)
			}
		}
	})
}
