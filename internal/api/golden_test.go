package api

import (
	"fmt"
	"strings"
	"testing"
)

// The routes, who may call them, and what they answer: a reviewer sees here what
// a change opens.
func TestTheRoutesAreAsReviewed(t *testing.T) {
	var b strings.Builder
	for _, op := range operationsOf(newWorld(t)) {
		reach := "tenant"
		if op.reach == ofPlatform {
			reach = "platform"
		}
		if op.reach == ofTenantOrAll {
			reach = "either" // a platform token needs admin
		}
		var statuses []string
		for _, s := range op.success {
			statuses = append(statuses, fmt.Sprint(s.status))
		}
		fmt.Fprintf(&b, "%-6s %-35s %-14s %-8s %s\n", op.method, op.path, op.scope, reach, strings.Join(statuses, " "))
	}
	golden(t, "routes.txt", b.String())
}

// What users are told when something is wrong, in full: these are the sentences
// that they read.
func TestTheProblemsAreAsReviewed(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxEndpoints = 1 })
	w.do("acme", "POST", "/events", `{"id":"e1","type":"cases.updated","data":{}}`).want(202)
	id := w.endpoint("acme", validEndpoint)
	w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).with("Idempotency-Key", "used").do().want(202)
	var b strings.Builder
	show := func(c *call) {
		r := c.do()
		fmt.Fprintf(&b, "%s %d\n", strings.ReplaceAll(r.what, id, "wh_…"), r.status)
		for _, name := range []string{"Allow", "Accept-Patch", "Retry-After", "WWW-Authenticate"} {
			if v := r.header.Get(name); v != "" {
				fmt.Fprintf(&b, "%s: %s\n", name, v)
			}
		}
		b.WriteString(strings.NewReplacer(`,"errors"`, ",\n \"errors\"", `{"pointer"`, "\n  {\"pointer\"", `],"request_id"`, "],\n \"request_id\"").Replace(r.body) + "\n\n")
	}
	const event = `{"type":"cases.updated","data":{}}`
	show(w.as("", "GET", "/endpoints", ""))
	show(w.as("", "GET", "/endpoints", "").with("Authorization", "Bearer pht_x"))
	show(w.as("acme-read", "POST", "/endpoints", validEndpoint))
	show(w.as("acme", "GET", "/tenants", ""))
	show(w.as("acme-admin", "GET", "/tenants", ""))
	show(w.as("platform", "GET", "/endpoints", ""))
	show(w.as("acme", "GET", "/endpoint", ""))
	show(w.as("acme", "PUT", "/endpoints/"+id, `{}`))
	show(w.as("acme", "GET", "/endpoints", "").with("Accept", "application/xml"))
	show(w.as("acme", "GET", "/endpoints/wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", ""))
	show(w.as("acme", "GET", "/events?limt=5&since=yesterday", ""))
	show(w.as("acme", "GET", "/events?cursor=abc", ""))
	show(w.as("acme", "PATCH", "/endpoints/"+id, `{}`).with("Content-Type", "text/plain"))
	show(w.as("acme", "PATCH", "/endpoints/"+id, `{"url":`))
	show(w.as("acme", "PATCH", "/endpoints/"+id, `{"status":"paused","status":"active"}`))
	show(w.as("acme", "PATCH", "/endpoints/"+id, `{"id":"x","url":null,"events":["cases.upated",7],"state":"paused"}`))
	show(w.as("acme", "PATCH", "/endpoints/"+id, `{"description":"x"}`).with("If-Match", `"7"`))
	show(w.as("acme", "POST", "/endpoints", validEndpoint))
	show(w.as("acme", "POST", "/endpoints", strings.Replace(validEndpoint, "partner.example.com", "10.0.0.1", 1)))
	show(w.as("acme", "POST", "/events", `{"type":"cases.upated","data":[],"colour":1}`))
	show(w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{"a":1,"a":2}}`))
	show(w.as("acme", "POST", "/events", `{"id":"e1","type":"cases.updated","data":{"other":1}}`))
	show(w.as("acme", "POST", "/events", event+strings.Repeat(" ", maxEventBody)))
	show(w.as("acme", "POST", "/events", strings.Replace(event, `{}`, `{"n":1}`, 1)).with("Idempotency-Key", "used"))
	show(w.as("acme", "POST", "/events", event).with("Idempotency-Key", "a b"))
	show(w.as("acme", "POST", "/events", `{"type":"cases.updated","tenant":"other","data":{}}`))
	show(w.as("platform", "POST", "/events", event))
	show(w.as("platform", "POST", "/tenants", `{"name":"acme"}`))
	show(w.as("platform-admin", "POST", "/tokens", `{"scopes":["events:publish"]}`))
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	show(w.as("acme", "POST", "/events", event))
	golden(t, "problems.txt", b.String())
}
