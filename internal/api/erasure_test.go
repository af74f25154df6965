package api

import (
	"database/sql"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/internal/store"
)

func TestAnErasedPayloadIsShownAsGone(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	id := w.event("acme", "cases.updated")
	before := w.do("acme", "GET", "/events/"+id, "").want(200)
	if before.value("data.data") == nil || before.value("data.payload_erased_at") != nil {
		t.Fatal(before.body)
	}
	w.pass(time.Hour)
	w.do("acme-read", "DELETE", "/events/"+id+"/payload", "").faults(403)
	w.do("other", "DELETE", "/events/"+id+"/payload", "").faults(404)
	w.as("acme", "DELETE", "/events/"+id+"/payload", "").with("Prefer", "return=representation").do().want(200).says(`{"deleted":true}`)
	w.pass(time.Hour)
	w.do("acme", "DELETE", "/events/"+id+"/payload", "").want(204) // again
	if before.text("data.payload_state") != "kept" {
		t.Error(before.body)
	}
	const at = "2026-04-29T10:10:00.000Z"
	got := w.do("acme", "GET", "/events/"+id, "").want(200)
	if got.value("data.data") != nil || got.text("data.payload_erased_at") != at || got.text("data.payload_state") != "erased" {
		t.Error(got.body)
	}
	if got.text("data.delivery_log.0.state") != "canceled" || got.text("data.delivery_log.0.reason") != "payload_erased" {
		t.Error(got.body)
	}
	if list := w.do("acme", "GET", "/events", "").want(200); list.text("data.0.payload_erased_at") != at {
		t.Error(list.body)
	}
	// Its id is still taken, by the same content only.
	again := `{"type":"cases.updated","id":"mine","data":{"n":1}}`
	w.do("acme", "POST", "/events", again).want(202)
	w.do("acme", "DELETE", "/events/mine/payload", "").want(204)
	w.do("acme", "POST", "/events", again).want(202)
	w.do("acme", "POST", "/events", `{"type":"cases.updated","id":"mine","data":{"n":2}}`).faults(409, "/id")
}

// Another program reads the file: no byte is shown any more, but one is in the log.
func TestAnErasureThatAReaderHoldsUpIsAccepted(t *testing.T) {
	w := newWorld(t)
	id := w.event("acme", "cases.updated")
	reader, err := sql.Open("sqlite", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	snapshot, err := reader.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := snapshot.QueryRow(`SELECT count(*) FROM events`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := w.do("acme", "DELETE", "/events/"+id+"/payload", "").want(202)
		if got.header.Get("Retry-After") != "5" || got.text("data.id") != id || got.text("data.payload_state") != "erasing" {
			t.Error(got.header, got.body)
		}
		got = w.do("acme", "GET", "/events/"+id, "").want(200)
		if got.value("data.data") != nil || got.text("data.payload_state") != "erasing" {
			t.Error(got.body)
		}
	}
	if err := snapshot.Rollback(); err != nil {
		t.Fatal(err)
	}
	w.do("acme", "DELETE", "/events/"+id+"/payload", "").want(204)
	if got := w.do("acme", "GET", "/events/"+id, "").want(200); got.text("data.payload_state") != "erased" {
		t.Error(got.body)
	}
}

func TestDeletionsTellWhatWasErased(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	w.event("acme", "cases.updated")
	w.do("platform", "DELETE", "/tenants/acme", "").want(204)
	w.do("acme-admin", "GET", "/deletions", "").faults(401)
	w.do("platform-read", "GET", "/deletions", "").faults(403)
	got := w.do("platform", "GET", "/deletions", "").want(200)
	if got.text("data.0.tenant") != "acme" || got.value("data.0.completed_at") != nil || got.value("data.0.endpoints") != 1.0 {
		t.Error(got.body)
	}
	w.pass(time.Minute)
	for range 3 {
		if _, err := w.store.Sweep(t.Context(), w.now(), store.Retention{Events: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	got = w.do("platform", "GET", "/deletions", "").want(200)
	if got.text("data.0.completed_at") != "2026-04-29T09:11:00.000Z" || got.value("data.0.events") != 1.0 || got.value("data.0.deliveries") != 1.0 || got.value("data.0.secrets") != 1.0 {
		t.Error(got.body)
	}
	w.do("platform", "DELETE", "/tenants/other", "").want(204)
	names := func() (all []string) {
		cursor := ""
		for range 3 {
			page := w.do("platform", "GET", "/deletions?limit=1"+cursor, "").want(200)
			all = append(all, page.text("data.0.tenant"))
			next, more := page.value("next_cursor").(string)
			if !more {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(next)
		}
		return all
	}
	if diff := cmp.Diff([]string{"other", "acme"}, names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
