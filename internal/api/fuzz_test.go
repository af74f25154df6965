package api

import (
	"strings"
	"testing"
)

// Whatever comes in as a body, the answer is no 5xx, and a refused request
// changes nothing.
func FuzzBodies(f *testing.F) {
	w := newWorld(f)
	id := w.endpoint("acme", validEndpoint)
	for _, body := range []string{
		validEndpoint, `{}`, `[]`, `null`, ``, `{"url":null}`, `{"events":["*"]}`, `{"url":"https://[::ffff:7f00:1]/","events":["cases.*"]}`,
		`{"type":"cases.updated","data":{}}`, `{"events":[{"type":"cases.updated","data":{}}]}`, `{"name":"x"}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`,
		`{"description":"\u0000"}`, `{"status":"paused","status":"active"}`, `{"tenant":"acme","scopes":["admin"],"expires_at":"9999-12-31T23:59:59Z"}`,
		`{"timestamp":"0000-01-01T00:00:00+23:59","type":"cases.updated","data":{}}`, `{"deliver_at":"9999-12-31T23:59:59.999999999Z"}`,
		strings.Repeat(`{"a":`, 120), "\ufeff{}", `{"/~":1,"":2}`, `{"url":"https://xn--a/"}`, `{"url":"https://e.example.com:99999/","events":["a..b"]}`,
	} {
		f.Add(body, "k")
	}
	routes := []struct{ method, path string }{
		{"POST", "/endpoints"}, {"PATCH", "/endpoints/" + id}, {"POST", "/events"}, {"POST", "/events/batch"},
		{"POST", "/tenants"}, {"POST", "/tokens"}, {"POST", "/sending/resume"}, {"POST", "/tenants/other/resume"},
	}
	f.Fuzz(func(t *testing.T, body, key string) {
		w.t = t
		for _, r := range routes {
			for _, mediaType := range []string{"application/json", "application/x-ndjson"} {
				if len(body) == 0 {
					body = " "
				}
				c := w.as("platform", r.method, r.path, body).with("Content-Type", mediaType).with(tenantHeader, "acme")
				c.request.Header["Idempotency-Key"] = []string{key}
				got := c.do()
				if got.status >= 500 {
					t.Fatalf("%s %s %q: %d %s\n%s", r.method, r.path, body, got.status, got.body, w.log)
				}
				if got.status >= 400 && got.header.Get("Content-Type") != "application/problem+json" {
					t.Fatalf("%s %s %q: %d is no problem: %s", r.method, r.path, body, got.status, got.body)
				}
			}
		}
	})
}

// Whatever stands in a path or a query, the answer is no 5xx.
func FuzzTargets(f *testing.F) {
	w := newWorld(f)
	w.furnish()
	for _, s := range []string{"x", "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "%00", "..", "a=b&a=b", "limit=9223372036854775808", "cursor=AAAA", "since=2026-04-29T09:10:00Z", "%zz", "type=*", "event=%FF"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, id, query string) {
		w.t = t
		for _, path := range []string{"/endpoints/%s", "/endpoints/%s/health", "/endpoints/%s/stats", "/stats", "/events/%s", "/deliveries/%s", "/event-types/%s", "/endpoints", "/events", "/deliveries", "/event-types", "/tokens/%s", "/tenants/%s"} {
			c := w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "acme")
			c.request.URL.Path = strings.Replace(Base+path, "%s", id, 1)
			c.request.URL.RawPath = ""
			c.request.URL.RawQuery = query
			if got := c.do(); got.status >= 500 {
				t.Fatalf("%s %q %q: %d %s\n%s", path, id, query, got.status, got.body, w.log)
			}
		}
	})
}
