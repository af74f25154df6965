package api

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// example is a request of the reference with the answer that it shows.
type example struct {
	method, path, body string
	headers            [][2]string
	status             string
	answer             string // compact
}

var (
	curlLine   = regexp.MustCompile(`(?m)^curl -X (\w+) "\{\{BASE_URL\}\}([^"]+)"`)
	headerLine = regexp.MustCompile(`(?m)^-H "([\w-]+): ([^"]*)"`)
	bodyText   = regexp.MustCompile(`(?s)-d '(.*?)'`)
	statusLine = regexp.MustCompile(`(?s)Success Response \((\d+)\)\n(\{.*)`)
)

// examples reads the requests and answers out of the reference.
func examples(t *testing.T) []example {
	t.Helper()
	text, err := os.ReadFile("testdata/webhooks-api-v2.3.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	for _, section := range strings.Split(string(text), "Example Request\n")[1:] {
		line := curlLine.FindStringSubmatch(section)
		answer := statusLine.FindStringSubmatch(section)
		if line == nil || answer == nil {
			t.Fatalf("the reference has an example that cannot be read:\n%s", section)
		}
		e := example{method: line[1], path: line[2], status: answer[1], answer: compact(t, answer[2])}
		for _, h := range headerLine.FindAllStringSubmatch(section, -1) {
			e.headers = append(e.headers, [2]string{h[1], h[2]})
		}
		if b := bodyText.FindStringSubmatch(section); b != nil {
			e.body = b[1]
		}
		all = append(all, e)
	}
	if len(all) != 5 {
		t.Fatalf("the reference has %d examples, want 5", len(all))
	}
	return all
}

// compact takes the JSON value that s begins with, without its spaces.
func compact(t *testing.T, s string) string {
	t.Helper()
	var first json.RawMessage
	if err := json.NewDecoder(strings.NewReader(s)).Decode(&first); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, first); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return b.String()
}

// The reference's requests, run as they stand, answer byte for byte what it
// shows: keys, their order and values. Only ids and secrets are put in.
func TestTheReferencesExamples(t *testing.T) {
	w := newWorld(t)
	byMethod := map[string]example{}
	var list example
	for _, e := range examples(t) {
		if e.method == "GET" && strings.HasSuffix(e.path, "/endpoints") {
			list = e
			continue
		}
		byMethod[e.method] = e
	}
	id := ""
	run := func(e example) *result {
		t.Helper()
		path := strings.ReplaceAll(e.path, "{{WEBHOOK_ID}}", id)
		r := httptest.NewRequest(e.method, path, strings.NewReader(e.body))
		for _, h := range e.headers {
			r.Header.Set(h[0], strings.ReplaceAll(h[1], "{{ACCESS_TOKEN}}", w.tokens["acme"]))
		}
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, r)
		return &result{t, e.method + " " + e.path, rec.Code, rec.Header(), rec.Body.String()}
	}
	check := func(e example, status int, secret string) {
		t.Helper()
		got := run(e).want(status)
		if id == "" {
			id = got.text("data.id")
			secret = got.text("data.secret")
		}
		want := strings.NewReplacer("wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", id, "whsec_...", secret).Replace(e.answer)
		if diff := cmp.Diff(want, got.body); diff != "" {
			t.Errorf("%s (-reference +got):\n%s", got.what, diff)
		}
		if ct := got.header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s: Content-Type %q", got.what, ct)
		}
	}
	check(byMethod["POST"], 201, "")
	check(list, 200, "")
	check(byMethod["GET"], 200, "")
	w.pass(20 * time.Minute) // the reference's PATCH came at 09:30
	check(byMethod["PATCH"], 200, "")

	// HTTP allows no content on a 204, so the body that the reference shows comes
	// with a 200, for who asks.
	gone := run(byMethod["DELETE"]).want(204)
	if gone.body != "" || gone.header.Get("Content-Type") != "" || gone.header.Get("Content-Length") != "" {
		t.Errorf("DELETE: %q %v, want a bare 204", gone.body, gone.header)
	}
	id = w.endpoint("acme", validEndpoint)
	e := byMethod["DELETE"]
	e.headers = append(e.headers, [2]string{"Prefer", "return=representation"})
	if got := run(e).want(200).hasHeader("Preference-Applied", "return=representation"); got.body != e.answer {
		t.Errorf("DELETE: %s, want %s", got.body, e.answer)
	}
}
