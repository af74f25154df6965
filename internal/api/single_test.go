package api

import (
	"testing"
)

// Of a header that means one thing, two are refused: a proxy in front may read the
// one and the service the other. Lists may come in several lines.
func TestHeadersThatMeanOneThingAreThereOnce(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", anEndpoint())
	const event = `{"type":"cases.updated","data":{}}`
	for _, c := range []struct {
		who, method, path, body string
		name                    string
		values                  []string
		status                  int
	}{
		{"acme", "POST", "/events", event, "Content-Type", []string{"application/json", "application/x-ndjson"}, 400},
		{"acme", "POST", "/events", event, "Content-Type", []string{"application/json", "application/json"}, 400},
		{"acme", "POST", "/events", event, "Content-Type", []string{"application/json", ""}, 400},
		{"acme", "PATCH", "/endpoints/" + id, `{}`, "Content-Type", []string{"application/merge-patch+json", "application/json"}, 400},
		{"acme", "GET", "/endpoints", "", "Content-Type", []string{"text/plain", "text/html"}, 400},
		{"acme", "POST", "/events", event, "Idempotency-Key", []string{"a", "b"}, 400},
		{"acme", "POST", "/events", event, "Idempotency-Key", []string{"a", "a"}, 400},
		{"acme", "GET", "/events", "", "Idempotency-Key", []string{"a", "b"}, 400},
		{"platform", "GET", "/endpoints", "", "Posthorn-Tenant", []string{"acme", "other"}, 400},
		{"acme", "GET", "/endpoints", "", "Posthorn-Tenant", []string{"acme", "acme"}, 400},
		{"acme", "POST", "/events", event, "Posthorn-Test", []string{"true", "false"}, 400},
		{"acme", "GET", "/endpoints", "", "Posthorn-Test", []string{"true", "false"}, 400},
		{"acme", "GET", "/stream", "", "Last-Event-Id", []string{"", "x"}, 400},
		{"acme", "GET", "/endpoints", "", "Authorization", []string{"Bearer " + w.tokens["acme"], "Bearer " + w.tokens["other"]}, 401},
		{"acme", "GET", "/endpoints", "", "Authorization", []string{"Bearer " + w.tokens["acme"], "Bearer " + w.tokens["acme"]}, 401},
		{"acme", "GET", "/endpoints", "", "Authorization", []string{"", "Bearer " + w.tokens["acme"]}, 401},
		{"acme", "POST", "/events", event, "Origin", []string{"https://a.example", "https://b.example"}, 400},
		{"acme", "POST", "/events", event, "Content-Encoding", []string{"identity", "gzip"}, 415},
		{"acme", "POST", "/events", event, "Content-Encoding", []string{"", "gzip"}, 415},
		{"acme", "POST", "/events", event, "Content-Encoding", []string{"identity, br"}, 415},
		{"acme", "POST", "/events", event, "Content-Encoding", []string{"identity", "identity"}, 202},
		{"acme", "GET", "/endpoints", "", "Accept", []string{"text/html", "application/json"}, 200},
		{"acme", "PATCH", "/endpoints/" + id, `{}`, "If-Match", []string{`"7"`, `"1"`}, 200},
		{"acme", "GET", "/endpoints", "", "X-Forwarded-For", []string{"192.0.2.1", "192.0.2.2"}, 200},
		{"acme", "GET", "/endpoints", "", "Cookie", []string{"a=b", "c=d"}, 200},
		{"acme", "DELETE", "/endpoints/" + id, "", "Prefer", []string{"respond-async", "return=representation"}, 200},
	} {
		call := w.as(c.who, c.method, c.path, c.body)
		call.request.Header[c.name] = c.values
		got := call.do()
		if got.status != c.status {
			t.Errorf("%s %s with %s %q: %d %s, want %d", c.method, c.path, c.name, c.values, got.status, got.body, c.status)
		} else if c.status == 400 {
			got.says("The header " + c.name + " is there 2 times")
		}
	}
}
