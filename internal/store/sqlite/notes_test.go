package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// Notes have rows of their own, which nobody sees once the event is gone: they
// must go too.
func TestNotesGoWithTheirEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, sqlite.Options{Path: path})
	now := time.Now()
	by := store.Change{Actor: "test", At: now}
	tenant, err := s.CreateTenant(t.Context(), by, "acme")
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.CreateEndpoint(t.Context(), by, posthorn.Endpoint{Ref: "wh_1", Tenant: tenant.ID, URL: "https://example.com", Events: []posthorn.Pattern{"*"}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	publish := func() {
		t.Helper()
		set, err := s.EndpointSet(t.Context(), tenant.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Publish(t.Context(), store.Publication{Tenant: tenant.ID, SetVersion: set.Version, At: now, Events: []store.NewEvent{{
			Type: "cases.updated", OccurredAt: now, Body: posthorn.AppendBody(nil, "", "cases.updated", now, []byte(`{}`)),
			Targets: []store.PublishTarget{{Endpoint: e.ID, Note: "n"}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	notes := func(want int) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var n int
		if err := db.QueryRow(`SELECT count(*) FROM event_notes`).Scan(&n); err != nil || n != want {
			t.Errorf("%d notes, %v; want %d", n, err, want)
		}
	}
	sweep := func() {
		t.Helper()
		storetest.Sweep(t, s, now, store.Retention{Events: time.Hour})
	}
	publish()
	now = now.Add(90 * time.Minute)
	publish()
	sweep()
	notes(2) // the first event is still shown, as expired
	now = now.Add(time.Hour)
	sweep()
	notes(1)
	now = now.Add(3 * time.Hour)
	sweep()
	sweep()
	notes(0)
}
