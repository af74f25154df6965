package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// serves has the node not stop.
func serves(c *Config) { c.Stopping = nil }

// lines decodes an export and returns it by kind.
func exportLines(t *testing.T, body string) (byKind map[string][]map[string]any, last string) {
	t.Helper()
	byKind = map[string][]map[string]any{}
	for line := range strings.Lines(body) {
		var one map[string]map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil || len(one) != 1 {
			t.Fatalf("a line is %q: %v", line, err)
		}
		for kind, v := range one {
			byKind[kind] = append(byKind[kind], v)
			last = kind
		}
	}
	return byKind, last
}

func TestAnExportHoldsEverythingOfATenantAndNoSecret(t *testing.T) {
	w := newWorld(t, serves)
	secret := w.do("acme", "POST", "/endpoints", validEndpoint).want(201).text("data.secret")
	w.endpoint("other", validEndpoint)
	const events = 520 // more than two pages
	for i := range events {
		w.do("acme", "POST", "/events", fmt.Sprintf("{\"type\":\"cases.updated\",\"data\":{\"n\":%d,\r\n \"x\":1.0}}", i)).want(202)
	}
	w.event("other", "cases.updated")
	w.pass(time.Second)
	made := w.do("acme-read", "POST", "/exports", `{}`).want(201)
	id := made.text("data.id")
	made.hasHeader("Location", "/v2.3/webhooks/exports/"+id)
	if made.value("data.endpoints") != 1.0 || made.text("data.content") != "/v2.3/webhooks/exports/"+id+"/content" || made.text("data.expires_at") != "2026-04-30T09:10:01.000Z" {
		t.Error(made.body)
	}
	w.event("acme", "cases.updated") // too late for it
	got := w.do("acme", "GET", "/exports/"+id+"/content", "").want(200).hasHeader("Content-Type", "application/x-ndjson").hasHeader("Cache-Control", "no-store")
	all, last := exportLines(t, got.body)
	if len(all["endpoint"]) != 1 || len(all["event"]) != events || len(all["delivery"]) != events || len(all["end"]) != 1 || last != "end" {
		t.Errorf("%d endpoints, %d events, %d deliveries; the last line is %s", len(all["endpoint"]), len(all["event"]), len(all["delivery"]), last)
	}
	if end := all["end"][0]; end["events"] != float64(events) || end["deliveries"] != float64(events) || end["endpoints"] != 1.0 {
		t.Errorf("%v", end)
	}
	if !strings.Contains(got.body, "\"data\":{\"n\":519,   \"x\":1.0}") {
		t.Error("data is not what was published")
	}
	if strings.Contains(got.body, secret) || strings.Contains(got.body, "whsec_") || strings.Contains(got.body, `"secret"`) {
		t.Error("a secret is in it")
	}
	for _, action := range []string{"export.create", "export.download"} {
		entries, _, err := w.store.AuditEntries(t.Context(), store.AuditFilter{Tenant: w.tenant("acme").ID, Action: action}, 0, 10)
		if err != nil || len(entries) != 1 || entries[0].Subject != id {
			t.Errorf("%s: %+v, %v", action, entries, err)
		}
	}
	w.as("acme", "GET", "/exports/"+id+"/content", "").with("Accept", "text/html").do().faults(406)
	w.do("acme", "GET", "/exports/"+id, "").want(200).says(made.body)
	w.pass(24 * time.Hour)
	w.do("acme", "GET", "/exports/"+id, "").faults(404)
	w.do("acme", "GET", "/exports/"+id+"/content", "").faults(404)
}

func TestExportsAreBounded(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.event("acme", "cases.updated")
		w.pass(time.Hour)
	}
	id := w.do("acme", "POST", "/exports", `{"since":"2026-04-29T10:00:00Z","until":"2026-04-29T10:30:00Z"}`).want(201).text("data.id")
	all, _ := exportLines(t, w.do("acme", "GET", "/exports/"+id+"/content", "").want(200).body)
	if len(all["event"]) != 1 || all["event"][0]["accepted_at"] != "2026-04-29T10:10:00.000Z" {
		t.Errorf("%v", all["event"])
	}
	w.do("acme", "POST", "/exports", `{"since":"2030-01-01T00:00:00Z"}`).faults(422, "/since")
	w.do("acme", "POST", "/exports", `{"since":"2026-04-29T10:00:00Z","until":"2026-04-29T10:00:00Z"}`).faults(422, "/since")
	w.do("acme", "POST", "/exports", `{"until":"soon","x":1}`).faults(422, "/until", "/x")
	w.do("acme-write", "POST", "/exports", `{}`).faults(403)
}
