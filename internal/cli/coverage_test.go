package cli_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/posthorn/posthorn/internal/cli"
)

// withoutCommand are the operations that no command makes, and why.
var withoutCommand = map[string]string{
	"POST /events/batch":      "programs publish in batches, by client.SendBatch; a shell has \"event send\"",
	"GET /exports/{exportId}": "\"export\" makes one and writes it at once; nothing is left to look at",
}

// operations reads the description that internal/api holds the service to:
// "POST /events".
func operations(t *testing.T) (all []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash("../api/testdata/openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(all)
	if len(all) < 50 {
		t.Fatalf("the description has %d operations", len(all))
	}
	return all
}

// Every operation has a command, which its command line's reference names, or a
// written reason; no command names one that is not there.
func TestEveryOperationHasACommand(t *testing.T) {
	made := map[string][]string{}
	for _, c := range cli.Commands() {
		for _, op := range slices.Concat(c.Calls, c.Like) {
			made[op] = append(made[op], c.Path)
		}
	}
	for _, op := range operations(t) {
		commands, reason := made[op], withoutCommand[op]
		switch {
		case commands == nil && reason == "":
			t.Errorf("%s has neither a command nor a reason why it has none", op)
		case commands != nil && reason != "":
			t.Errorf("%s has no command, it says, and %v make it", op, commands)
		}
		delete(made, op)
	}
	for op, commands := range made {
		t.Errorf("%v say that they make %s, which the API does not have", commands, op)
	}
}

// Every operation is shown on a page that a person wrote: by its method and path, or
// by a curl command.
func TestEveryOperationIsInTheDocumentation(t *testing.T) {
	pages := shownOn(t)
	for _, op := range operations(t) {
		if pages(op) == nil {
			t.Errorf("no page shows %s", op)
		}
	}
}

// shownOn reads the pages and returns which of them show an operation.
func shownOn(t *testing.T) func(op string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.FromSlash("../../docs/*.md"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%v, %v", files, err)
	}
	lines := map[string][]string{}
	for _, file := range files {
		if filepath.Base(file) == "cli.md" {
			continue // made from the commands
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines[filepath.Base(file)] = strings.Split(strings.ReplaceAll(string(b), "\\\n", " "), "\n")
	}
	return func(op string) (pages []string) {
		for _, page := range slices.Sorted(maps.Keys(lines)) {
			if slices.ContainsFunc(lines[page], func(line string) bool { return shows(line, op) }) {
				pages = append(pages, page)
			}
		}
		return pages
	}
}

var placeholder = regexp.MustCompile(`\\\{\w+\\\}`)

// shows reports whether a line shows a request of the operation.
func shows(line, op string) bool {
	method, path, _ := strings.Cut(op, " ")
	path = "(?:/v2.3/webhooks|\\$API)?" + placeholder.ReplaceAllString(regexp.QuoteMeta(path), "[^\\s/`'\"]+") + "(?:$|[\\s`'\"?,.;:|)\\[])"
	if regexp.MustCompile(`\b` + method + ` ` + path).MatchString(line) {
		return true
	}
	curl := "GET"
	if _, after, ok := strings.Cut(line, "curl -X "); ok {
		curl, _, _ = strings.Cut(after, " ")
	} else if !strings.Contains(line, "curl ") {
		return false
	}
	return curl == method && regexp.MustCompile(`[\s'](?:https?://[^/\s]+|\$POSTHORN_SERVER)?`+path).MatchString(line)
}

// recorder answers as a server of which everything can be had and nothing changed,
// and notes what it is asked.
type recorder struct {
	mu    sync.Mutex
	asked []string
}

func (rec *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec.mu.Lock()
	rec.asked = append(rec.asked, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v2.3/webhooks"))
	rec.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Method != http.MethodGet {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"type":"urn:posthorn:problem:conflict","title":"Conflict","status":409,"detail":"No.","errors":[],"request_id":"r"}`)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2.3/webhooks")
	list := map[string]bool{"/endpoints": true, "/events": true, "/deliveries": true, "/event-types": true, "/replays": true, "/audit": true, "/outbox": true}
	if list[path] {
		fmt.Fprint(w, `{"data":[],"next_cursor":null}`)
		return
	}
	fmt.Fprint(w, `{"data":{"id":"x","state":"completed","example":{"a":1},"data":{"a":1},"timestamp":"2026-04-29T09:10:00Z","type":"cases.updated"}}`)
}

// Each example of a command that calls the server, run as it is written, asks for
// what the command says that it calls, and for nothing else.
func TestCommandsCallWhatTheySay(t *testing.T) {
	files := t.TempDir()
	for name, text := range map[string]string{"case.json": `{"case":{"id":590}}`, "settings.json": `{}`, "filter.cel": `true`} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(files)
	ran := 0
	for _, c := range cli.Commands() {
		if c.Calls == nil {
			continue
		}
		rec := &recorder{}
		server := httptest.NewServer(rec)
		environ := []string{"POSTHORN_SERVER=" + server.URL, "POSTHORN_TOKEN=x", "HOME=" + files}
		var talk string
		for line := range strings.SplitSeq(strings.ReplaceAll(c.Example, "\\\n", " "), "\n") {
			for _, more := range [][]string{nil, {"--yes"}} {
				if args := words(line); len(args) > 0 {
					if c.Path == "posthorn event tail" || c.Path == "posthorn listen" {
						args = append(args, "--reconnect-for", "0s")
					}
					_, _, talk = run(t, environ, append(args[1:], more...)...)
				}
			}
		}
		server.Close()
		ran++
		for _, asked := range rec.asked {
			if !slices.ContainsFunc(c.Calls, func(op string) bool { return template(op).MatchString(asked) }) {
				t.Errorf("%s asks for %s, which it does not say", c.Path, asked)
			}
		}
		first := template(c.Calls[0])
		if !slices.ContainsFunc(rec.asked, first.MatchString) {
			t.Errorf("%s does not ask for %s, but for %q: %s", c.Path, c.Calls[0], rec.asked, talk)
		}
	}
	if ran < 35 {
		t.Errorf("only %d commands call the server", ran)
	}
}

// template matches a request of an operation.
func template(op string) *regexp.Regexp {
	return regexp.MustCompile("^" + placeholder.ReplaceAllString(regexp.QuoteMeta(op), `[^/]+`) + "$")
}

// words splits the command of an example as a shell would, up to a pipe, a
// redirection or a comment.
func words(line string) (all []string) {
	word, quoted, in := "", false, false
	for _, c := range strings.TrimSpace(line) {
		switch {
		case c == '\'':
			quoted, in = !quoted, true
		case quoted || c != ' ' && c != '|' && c != '>' && c != '<' && c != '#':
			word, in = word+string(c), true
		default:
			if in {
				all, word, in = append(all, word), "", false
			}
			if c != ' ' {
				return all
			}
		}
	}
	if in {
		all = append(all, word)
	}
	return all
}
