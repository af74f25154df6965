package api

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file that a reviewer reads the differences of.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test ./internal/api -update writes it anew):\n%s", name, diff)
	}
}

func TestTheDescriptionIsAsReviewed(t *testing.T) {
	w := newWorld(t)
	got := w.do("", "GET", "/openapi.yaml", "").want(200).hasHeader("Content-Type", "application/yaml")
	golden(t, "openapi.yaml", got.body)
}

// described is the document as a reader of it sees it.
func described(t *testing.T, w *world) map[string]any {
	t.Helper()
	s := &server{Config: w.config}
	s.operations = s.declare()
	text, err := json.Marshal(s.document())
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// walk calls fn for every object in v.
func walk(v any, fn func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		fn(v)
		for _, child := range v {
			walk(child, fn)
		}
	case []any:
		for _, child := range v {
			walk(child, fn)
		}
	}
}

func TestTheDescriptionIsWhole(t *testing.T) {
	w := newWorld(t)
	doc := described(t, w)
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", doc["openapi"])
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	used := map[string]bool{}
	walk(doc, func(o map[string]any) {
		if ref, ok := o["$ref"].(string); ok {
			name := strings.TrimPrefix(ref, "#/components/schemas/")
			if used[name] = true; schemas[name] == nil {
				t.Errorf("%s leads nowhere", ref)
			}
		}
		if enum, ok := o["enum"].([]any); ok && o["type"] == nil {
			t.Errorf("an enum without a type: %v", enum)
		}
	})
	for name := range schemas {
		if !used[name] {
			t.Errorf("the schema %s is used by nothing", name)
		}
	}
	ids := map[string]bool{}
	for path, item := range doc["paths"].(map[string]any) {
		for method, v := range item.(map[string]any) {
			op := v.(map[string]any)
			id := op["operationId"].(string)
			if ids[id] {
				t.Errorf("%s stands for two operations", id)
			}
			ids[id] = true
			var inPath []string
			parameters, _ := op["parameters"].([]any)
			for _, p := range parameters {
				p := p.(map[string]any)
				if p["in"] == "path" {
					inPath = append(inPath, "{"+p["name"].(string)+"}")
				}
				if p["description"] == nil {
					t.Errorf("%s does not describe %s", id, p["name"])
				}
			}
			if want := regexp.MustCompile(`\{\w+\}`).FindAllString(path, -1); !slices.Equal(inPath, want) {
				t.Errorf("%s %s describes %v", method, path, inPath)
			}
			if op["summary"] == nil || op["description"] == nil {
				t.Errorf("%s lacks a summary or description", id)
			}
		}
	}
	if len(ids) != len(samples) {
		t.Errorf("%d operations are described, want %d", len(ids), len(samples))
	}
}

// Every answer to a sample fits the schema that is described for it.
func TestAnswersFitTheirDescription(t *testing.T) {
	w := newWorld(t)
	doc := described(t, w)
	for _, op := range operationsOf(w) {
		w := newWorld(t)
		s := samples[op.id]
		fill := w.furnish()
		if strings.Contains(s.path, "{delivery}") || op.id == "list-deliveries" || op.id == "get-event" {
			id := w.do("acme", "GET", "/deliveries", "").text("data.0.id")
			w.record(w.delivery(id), anAttempt())
		}
		c := w.as("platform", op.method, fill(s.path), s.body)
		if op.reach != ofPlatform {
			c.with(tenantHeader, "acme")
		}
		got := c.do().want(s.status)
		described := doc["paths"].(map[string]any)[op.path].(map[string]any)[strings.ToLower(op.method)].(map[string]any)
		response, ok := described["responses"].(map[string]any)[strconv.Itoa(got.status)].(map[string]any)
		if !ok {
			t.Errorf("%s: %d is not described", op.id, got.status)
			continue
		}
		content, _ := response["content"].(map[string]any)
		if got.body == "" {
			if content != nil {
				t.Errorf("%s: a body is described and none comes", op.id)
			}
			continue
		}
		if op.stream != nil {
			if content["text/event-stream"] == nil || got.header.Get("Content-Type") != "text/event-stream" {
				t.Errorf("%s: described as %v, came as %s", op.id, content, got.header.Get("Content-Type"))
			}
			continue
		}
		schema := content["application/json"].(map[string]any)["schema"]
		fits(t, op.id, doc, schema, got.value("data"), "data", got.body)
	}
}

// fits checks the members, and that no others are there, and their types.
func fits(t *testing.T, id string, doc map[string]any, schema, v any, at, body string) {
	t.Helper()
	root := resolve(doc, schema)
	if at == "data" {
		root = resolve(doc, root["properties"].(map[string]any)["data"])
	}
	types := []string{}
	switch typ := root["type"].(type) {
	case string:
		types = append(types, typ)
	case []any:
		for _, one := range typ {
			types = append(types, one.(string))
		}
	}
	if !slices.Contains(types, jsonType(v)) && !(jsonType(v) == "integer" && slices.Contains(types, "number")) {
		t.Errorf("%s: %s is %s, described as %v", id, at, jsonType(v), types)
		return
	}
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			fits(t, id, doc, root["items"], item, at+"."+strconv.Itoa(i), body)
		}
	case map[string]any:
		properties, _ := root["properties"].(map[string]any)
		if properties == nil {
			return // any object
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(properties)), slices.Sorted(maps.Keys(v))); diff != "" {
			t.Errorf("%s: members of %s (-described +got):\n%s", id, at, diff)
			return
		}
		for name, value := range v {
			fits(t, id, doc, properties[name], value, at+"/"+name, body)
		}
	}
}

func resolve(doc map[string]any, schema any) map[string]any {
	s := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		return doc["components"].(map[string]any)["schemas"].(map[string]any)[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any)
	}
	return s
}

func jsonType(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	}
	return "object"
}

// Bodies are read into the structs that are described: what is described is
// taken, and what is required is missed.
func TestBodiesAreReadAsDescribed(t *testing.T) {
	for _, op := range operationsOf(newWorld(t)) {
		if op.body == nil || op.body.model == nil || op.reach == ofPublisher {
			continue
		}
		into := reflect.New(op.body.model)
		in, err := decode([]byte(`{}`), into.Interface())
		if err != nil {
			t.Fatal(err)
		}
		required := map[string]bool{}
		for _, f := range in.faults {
			required[f.Pointer] = true
		}
		doc := described(t, newWorld(t))
		schema := doc["components"].(map[string]any)["schemas"].(map[string]any)[op.body.model.Name()].(map[string]any)
		listed, _ := schema["required"].([]any)
		if len(listed) != len(required) {
			t.Errorf("%s: described as required %v, missed %v", op.id, listed, required)
		}
		for name := range schema["properties"].(map[string]any) {
			in, err := decode([]byte(`{"`+name+`":null}`), into.Interface())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range in.faults {
				if strings.Contains(f.Detail, "not known") {
					t.Errorf("%s: %s is described and not known", op.id, name)
				}
			}
		}
	}
}

// The pages are plain and load nothing from anywhere.
func TestPages(t *testing.T) {
	w := newWorld(t)
	loads := regexp.MustCompile(`(?i)<(script|link|img|iframe|object|embed|form|base)\b|url\(|@import|(src|action)=|href="?(https?:|//)`)
	for _, path := range []string{"/", "/docs"} {
		got := w.do("", "GET", path, "").want(200).hasHeader("Content-Type", "text/html; charset=utf-8").hasHeader("X-Content-Type-Options", "nosniff")
		if found := loads.FindString(got.body); found != "" {
			t.Errorf("%s has %q in it", path, found)
		}
		if policy := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
			t.Errorf("%s: policy %q", path, policy)
		}
		if strings.Contains(got.body, "ZgotmplZ") {
			t.Errorf("%s: the template refused a value", path)
		}
	}
	docs := w.do("", "GET", "/docs", "").body
	for _, op := range operationsOf(w) {
		if !strings.Contains(docs, `<article id="`+op.id+`">`) || !strings.Contains(docs, op.summary) {
			t.Errorf("/docs lacks %s", op.id)
		}
	}
	w.do("", "GET", "/", "").says(`href="/docs"`).says(`href="/openapi.yaml"`).says("1.2.3")
	w.do("", "POST", "/docs", "").faults(405).hasHeader("Allow", "GET, HEAD, OPTIONS")
}

func TestTheExamplesOfTheDescriptionWork(t *testing.T) {
	tried := 0
	for _, op := range operationsOf(newWorld(t)) {
		if op.body == nil || op.body.model == nil {
			continue
		}
		tried++
		w := newWorld(t)
		c := w.as("platform", op.method, w.furnish()(samples[op.id].path), op.body.example)
		if op.reach != ofPlatform {
			c.with(tenantHeader, "acme")
		}
		c.do().want(op.success[0].status)
	}
	if tried < 6 {
		t.Errorf("only %d examples", tried)
	}
}
