package cli_test

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/cli"
)

// methods calls each method of the Go client with arguments of no meaning and returns
// which operations they ask for: "GET /events" to "Events".
func methods(t *testing.T, known []string) map[string][]string {
	t.Helper()
	rec := &recorder{}
	server := httptest.NewServer(rec)
	defer server.Close()
	api, err := client.New(client.Config{Server: server.URL, Token: "x"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found := map[string][]string{}
	v := reflect.ValueOf(api)
	for i := range v.NumMethod() {
		rec.asked = nil
		method, name := v.Method(i), v.Type().Method(i).Name
		var args []reflect.Value
		for j := range method.Type().NumIn() {
			args = append(args, meaningless(ctx, method.Type().In(j)))
		}
		out := method.Call(args)
		if out[0].Kind() == reflect.Func { // a list
			for range out[0].Seq2() {
				break
			}
		}
		for _, asked := range rec.asked {
			op := operationOf(known, asked)
			if op == "" {
				t.Errorf("client.%s asks for %s, which the API does not have", name, asked)
			} else if !slices.Contains(found[op], name) {
				found[op] = append(found[op], name)
			}
		}
		if rec.asked == nil {
			t.Errorf("client.%s asks for nothing", name)
		}
	}
	return found
}

// meaningless makes an argument of a type.
func meaningless(ctx context.Context, typ reflect.Type) reflect.Value {
	switch typ {
	case reflect.TypeFor[context.Context]():
		return reflect.ValueOf(ctx)
	case reflect.TypeFor[string]():
		return reflect.ValueOf("x")
	case reflect.TypeFor[io.Writer]():
		return reflect.ValueOf(io.Discard)
	case reflect.TypeFor[client.Event]():
		return reflect.ValueOf(client.Event{ID: "x", Type: "cases.updated", Data: []byte("{}")})
	case reflect.TypeFor[[]client.Event]():
		return reflect.ValueOf([]client.Event{{ID: "x", Type: "cases.updated", Data: []byte("{}")}})
	}
	return reflect.Zero(typ)
}

// operationOf finds the operation of a request; of several the one with more words.
func operationOf(known []string, asked string) (found string) {
	for _, op := range known {
		if template(op).MatchString(asked) && (found == "" || strings.Count(op, "{") < strings.Count(found, "{")) {
			found = op
		}
	}
	return found
}

// Every operation has a command or a reason, a method of the Go client, and a page;
// docs/proofs/calls.md shows which.
func TestTheTableOfCalls(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Calls\n\n<!-- Made by internal/cli; \"go test ./internal/cli -update\" writes it. -->\n\n" +
		"Each operation of the API with its command, its method of the Go client and the page that\nshows it. " +
		"The test that writes this table runs the examples of the commands and calls the\nmethods against a server that notes what it is asked. " +
		"`app.TestEveryOperationOnEachStore`\ncalls each of them on SQLite and on PostgreSQL and holds every answer to `/openapi.yaml`.\n\n" +
		"| operation | command | Go | page |\n|---|---|---|---|\n")
	known := operations(t)
	made, pages := methods(t, known), shownOn(t)
	for _, op := range known {
		var commands []string
		for _, c := range cli.Commands() {
			name := "`" + strings.TrimPrefix(c.Path, "posthorn ") + "`"
			if slices.Contains(c.Like, op) {
				name += " (on the store)"
			}
			if slices.Contains(c.Calls, op) || slices.Contains(c.Like, op) {
				commands = append(commands, name)
			}
		}
		command := strings.Join(commands, ", ")
		if command == "" {
			command = "none: " + withoutCommand[op]
		}
		if made[op] == nil {
			t.Errorf("no method of the client makes %s", op)
		}
		var links []string
		for _, page := range pages(op) {
			links = append(links, "["+page+"](../"+page+")")
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s()` | %s |\n", op, command, strings.Join(made[op], "()`, `"), strings.Join(links, ", "))
	}
	upToDate(t, "docs/proofs/calls.md", b.String())
}
