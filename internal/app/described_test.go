package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const (
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
	docURL      = "posthorn:openapi"
)

// described is a service behind its own description: each answer is held to the
// schema that /openapi.yaml gives for its operation and status, and what was called
// is noted.
type described struct {
	base      string
	doc       map[string]any
	templates map[string]*regexp.Regexp

	mu       sync.Mutex // a stream is followed beside other calls
	compiler *jsonschema.Compiler
	called   map[string]bool // "POST /events"
}

func describedBy(t *testing.T, base string) *described {
	t.Helper()
	code, text := get(t, base+"/openapi.yaml")
	if code != http.StatusOK {
		t.Fatalf("/openapi.yaml: %d", code)
	}
	var parsed any
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	inJSON, err := json.Marshal(parsed) // YAML's numbers are not JSON's
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(inJSON)))
	if err != nil {
		t.Fatal(err)
	}
	d := &described{base: base, doc: doc.(map[string]any), compiler: jsonschema.NewCompiler(), called: map[string]bool{}, templates: map[string]*regexp.Regexp{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(docURL, doc); err != nil {
		t.Fatal(err)
	}
	for path := range d.doc["paths"].(map[string]any) {
		d.templates[path] = regexp.MustCompile("^" + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$")
	}
	return d
}

// operation finds the path that a request is of; of several the one with more words
// in it.
func (d *described) operation(t *testing.T, path string) string {
	t.Helper()
	found := ""
	for template, re := range d.templates {
		if re.MatchString(path) && (found == "" || strings.Count(template, "{") < strings.Count(found, "{")) {
			found = template
		}
	}
	if found == "" {
		t.Fatalf("%s is not described", path)
	}
	return found
}

// uncalled lists the operations that were never called.
func (d *described) uncalled() (left []string) {
	for path, item := range d.doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if op := strings.ToUpper(method) + " " + path; !d.called[op] {
				left = append(left, op)
			}
		}
	}
	slices.Sort(left)
	return left
}

// caller calls as somebody.
type caller struct {
	*described
	token  string
	header []string // name, value…
}

// answer is what came back.
type apiAnswer struct {
	t    *testing.T
	body string
}

// call makes a request, wants the status, and holds the answer to its description.
func (c caller) call(t *testing.T, status int, method, target, body string) apiAnswer {
	t.Helper()
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, c.base+"/v2.3/webhooks"+target, from)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		r.Header.Set("Content-Type", typeJSON)
	}
	for i := 0; i < len(c.header); i += 2 {
		r.Header.Set(c.header[i], c.header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text := ""
	if mediaType(resp) == "text/event-stream" { // it does not end: its first event is enough
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				text = data
				break
			}
		}
	} else {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s, want %d", method, target, resp.StatusCode, text, status)
	}
	path, _, _ := strings.Cut(target, "?")
	c.check(t, method, path, resp, text)
	return apiAnswer{t, text}
}

func mediaType(resp *http.Response) string {
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return kind
}

// check holds an answer to the schema of its operation, status and media type.
func (d *described) check(t *testing.T, method, path string, resp *http.Response, body string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	template := d.operation(t, path)
	op := method + " " + template
	if resp.StatusCode < 300 {
		d.called[op] = true
	}
	item, ok := d.doc["paths"].(map[string]any)[template].(map[string]any)[strings.ToLower(method)].(map[string]any)
	if !ok {
		t.Fatalf("%s is not described", op)
	}
	response, ok := item["responses"].(map[string]any)[fmt.Sprint(resp.StatusCode)].(map[string]any)
	if !ok {
		t.Errorf("%s: %d is not described", op, resp.StatusCode)
		return
	}
	content, _ := response["content"].(map[string]any)
	if body == "" {
		if content != nil {
			t.Errorf("%s: a body is described and none came", op)
		}
		return
	}
	kind := mediaType(resp)
	if content[kind] == nil {
		t.Errorf("%s: %s is not described for %d", op, kind, resp.StatusCode)
		return
	}
	if kind != typeJSON && kind != typeProblem {
		return
	}
	pointer := "#/paths/" + escaped(template) + "/" + strings.ToLower(method) + "/responses/" + fmt.Sprint(resp.StatusCode) + "/content/" + escaped(kind) + "/schema"
	schema, err := d.compiler.Compile(docURL + pointer)
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v: %s", op, err, body)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s: the answer is not as described: %v\n%s", op, err, body)
	}
}

// escaped writes a name in a JSON pointer that is part of a URL.
func escaped(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

// text finds a string, as data.id or data.0.id.
func (a apiAnswer) text(path string) string {
	a.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		a.t.Fatalf("%v: %s", err, a.body)
	}
	for part := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			if i := int(part[0] - '0'); i < len(in) {
				v = in[i]
			} else {
				v = nil
			}
		}
	}
	s, ok := v.(string)
	if !ok {
		a.t.Fatalf("no %s in %s", path, a.body)
	}
	return s
}
